"""The few calls of other Google Cloud services that a project is looked at and prepared with.

Service Usage, Resource Manager, IAM, Cloud Billing, OS Login and Organization Policy, each validated by its own
discovery document. Their paths differ, so one address serves them all. Call names here start with the service:
"serviceusage.services.list".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes import cloud_quotas
from tests.fakes.cloud_prices import skus
from tests.fakes.compute_cloud import NUMBER, USER, Cloud
from tests.fakes.compute_faults import Refused, disabled
from tests.fakes.compute_listing import page
from tests.fakes.credentials import SERVICE_ACCOUNT
from tests.fakes.discovery import Call, Unexpected, discovery

Resource = dict[str, Any]
Query = Mapping[str, list[str]]

_DOCUMENTS = (
    "serviceusage.v1", "cloudresourcemanager.v3", "cloudresourcemanager.v1", "iam.v1", "cloudbilling.v1",
    "oslogin.v1", "orgpolicy.v2",
)  # fmt: skip
OS_LOGIN = {USER: "tester_example_org", SERVICE_ACCOUNT: "sa_4711"}  # the names that accounts log in with
_DONE = {"name": "operations/noop.DONE_OPERATION", "done": True}


@dataclass
class Project:
    """What a test may change."""

    enabled: set[str] = field(
        default_factory=lambda: {
            f"{name}.googleapis.com"
            for name in (
                "compute", "storage", "iam", "serviceusage", "cloudresourcemanager", "cloudbilling", "oslogin",
                "orgpolicy", "iap", "cloudquotas",
            )
        }
    )  # fmt: skip
    billing_enabled: bool = True
    refused_permissions: set[str] = field(default_factory=set)  # "compute.instances.create"
    org_policies: dict[str, bool] = field(default_factory=dict)  # "compute.requireOsLogin": enforced
    policies: dict[str, Resource] = field(
        default_factory=dict
    )  # of service accounts, by email; "" the project's
    roles: dict[str, Resource] = field(default_factory=dict)  # custom ones
    public_keys: dict[str, Resource] = field(default_factory=dict)  # of OS Login, by fingerprint
    quota_requests: dict[str, Resource] = field(default_factory=dict)  # by name


class Services:
    def __init__(self, cloud: Cloud, project: Project, page_size: int) -> None:
        self.cloud = cloud
        self.project = project
        self.page_size = page_size

    def recognise(self, verb: str, path: str, query: Query, body: Any) -> Call:
        """`path` is the whole one, without the leading slash: "v1/projects/trees-4711/services"."""
        if call := cloud_quotas.recognised(verb, path, query, body):
            return call
        for document in _DOCUMENTS:
            api = discovery(document)
            try:
                call = api.call(verb, path, query, more=set())
            except Unexpected as unexpected:
                if unexpected.code == 404:
                    continue
                raise
            if body is not None:
                api.check_body(call, body)
            return Call(f"{document.split('.')[0]}.{call.name}", call.path, call.query)
        raise Unexpected(404, f"no method {verb} {path}")

    def perform(self, call: Call, query: Query, body: Resource) -> Resource:
        service, _, name = call.name.partition(".")
        if f"{service}.googleapis.com" not in self.project.enabled and service != "serviceusage":
            raise disabled(f"{service}.googleapis.com", service, self.cloud.project)
        handler = self._handlers().get(f"{service}.{name}")
        if handler is None:
            raise Unexpected(501, f"{call.name} is not part of this fake")
        return handler(call, query, body)

    def mistake(self, call: Call, path: str, answer: Resource) -> str:
        """What in an answer is not as the service would write it."""
        service, _, name = call.name.partition(".")
        if service == "cloudquotas":
            return ""
        version = path.split("/", maxsplit=1)[0]
        api = discovery(f"{service}.{version}")
        return api.mistake(Call(name, call.path, call.query), answer)

    def _handlers(self) -> dict[str, Callable[[Call, Query, Resource], Resource]]:
        return {
            "serviceusage.services.list": self._services,
            "serviceusage.services.batchGet": lambda call, query, _: {
                "services": [self._service(name.rpartition("/")[2]) for name in query.get("names", [])]
            },
            "serviceusage.services.get": lambda call, *_: self._service(call.path["servicesId"]),
            "serviceusage.services.enable": lambda call, *_: self._enable([call.path["servicesId"]]),
            "serviceusage.services.batchEnable": lambda call, _, body: self._enable(body["serviceIds"]),
            "cloudresourcemanager.projects.get": self._project,
            "cloudresourcemanager.projects.testIamPermissions": lambda call, _, body: self._tested(body),
            "cloudresourcemanager.projects.getIamPolicy": lambda *_: self._policy(""),
            "cloudresourcemanager.projects.setIamPolicy": lambda call, _, body: self._set_policy("", body),
            "iam.permissions.queryTestablePermissions": lambda *_: {
                "permissions": [{"name": "compute.instances.delete", "stage": "GA"}]
            },
            "iam.projects.roles.get": lambda call, *_: self._role(call.path["rolesId"]),
            "iam.projects.roles.create": lambda call, _, body: self._make_role(body),
            "iam.projects.serviceAccounts.get": lambda call, *_: self._account(
                call.path["serviceAccountsId"]
            ),
            "iam.projects.serviceAccounts.create": lambda call, _, body: self._make_account(body),
            "iam.projects.serviceAccounts.getIamPolicy": lambda call, *_: self._policy(self._email(call)),
            "iam.projects.serviceAccounts.setIamPolicy": lambda call, _, body: self._set_policy(
                self._email(call), body
            ),
            "iam.projects.serviceAccounts.testIamPermissions": lambda call, _, body: (
                (self._email(call) and self._tested(body)) or {}
            ),
            "cloudbilling.projects.getBillingInfo": lambda *_: self._billing(),
            "cloudbilling.services.skus.list": self._skus,
            "oslogin.users.getLoginProfile": lambda call, *_: self._profile(call.path["usersId"]),
            "oslogin.users.importSshPublicKey": self._import_key,
            "cloudquotas.quotaPreferences.list": lambda *_: {
                "quotaPreferences": list(self.project.quota_requests.values())
            },
            "cloudquotas.quotaPreferences.patch": lambda call, query, body: cloud_quotas.patched(
                self.project.quota_requests, call.path["name"], query, body, self.cloud.now()
            ),
            "orgpolicy.projects.policies.getEffectivePolicy": self._org_policy,
        }

    def _services(self, call: Call, query: Query, _: Resource) -> Resource:
        if call.query.get("filter", "state:ENABLED") != "state:ENABLED":
            raise Refused(400, "invalid", "this fake lists enabled services")
        items, token = page(
            [self._service(name) for name in sorted(self.project.enabled)], _paging(call), self.page_size
        )
        return {"services": items} | ({"nextPageToken": token} if token else {})

    def _service(self, name: str) -> Resource:
        return {
            "name": f"projects/{NUMBER}/services/{name}",
            "parent": f"projects/{NUMBER}",
            "config": {"name": name},
            "state": "ENABLED" if name in self.project.enabled else "DISABLED",
        }

    def _enable(self, names: list[str]) -> Resource:
        self.project.enabled.update(names)
        return _DONE

    def _project(self, call: Call, _: Query, __: Resource) -> Resource:
        wanted = next(iter(call.path.values()))
        if wanted not in {self.cloud.project, NUMBER}:
            raise Refused(
                403, "forbidden", f"Permission denied on resource '{wanted}' (or it may not exist)."
            )
        if "projectId" in call.path:  # version 1
            return {"projectId": self.cloud.project, "projectNumber": NUMBER, "lifecycleState": "ACTIVE"}
        return {"name": f"projects/{NUMBER}", "projectId": self.cloud.project, "state": "ACTIVE"}

    def _tested(self, body: Resource) -> Resource:
        refused = self.project.refused_permissions
        granted = [name for name in body.get("permissions", []) if name not in refused]
        return {"permissions": granted} if granted else {}

    def _policy(self, of: str) -> Resource:
        return self.project.policies.get(of, {"version": 1, "etag": "BwYAAA=="})

    def _set_policy(self, of: str, body: Resource) -> Resource:
        current, wanted = self._policy(of)["etag"], body["policy"]
        if wanted.get("etag", current) != current:
            raise Refused(409, "aborted", "There were concurrent policy changes. Please retry.")
        has_conditions = any("condition" in binding for binding in wanted.get("bindings", []))
        if has_conditions and wanted.get("version") != 3:
            raise Refused(400, "badRequest", "Policies with conditions must have version 3.")
        etag = hashlib.sha256(str(self._policy(of)).encode()).hexdigest()[:8]  # hex is base64, too
        self.project.policies[of] = {"version": 1, **wanted, "etag": etag}
        return self.project.policies[of]

    def _role(self, name: str) -> Resource:
        if name not in self.project.roles:
            raise Refused(404, "notFound", f"The role named {name} was not found.")
        return self.project.roles[name]

    def _make_role(self, body: Resource) -> Resource:
        name = body["roleId"]
        if name in self.project.roles:
            raise Refused(409, "alreadyExists", f"A role named {name} already exists.")
        full = f"projects/{self.cloud.project}/roles/{name}"
        self.project.roles[name] = {**body["role"], "name": full, "etag": "BwYA"}
        return self.project.roles[name]

    def _email(self, call: Call) -> str:
        return str(self._account(call.path["serviceAccountsId"])["email"])

    def _account(self, email: str) -> Resource:
        if email not in self.cloud.service_accounts:
            raise Refused(404, "notFound", f"Unknown service account: {email}")
        return {
            "name": f"projects/{self.cloud.project}/serviceAccounts/{email}",
            "projectId": self.cloud.project,
            "uniqueId": str(10**20 + sum(email.encode())),
            "email": email,
        }

    def _make_account(self, body: Resource) -> Resource:
        email = f"{body['accountId']}@{self.cloud.project}.iam.gserviceaccount.com"
        if email in self.cloud.service_accounts:
            raise Refused(409, "alreadyExists", f"Service account {body['accountId']} already exists.")
        self.cloud.service_accounts.add(email)
        return self._account(email)

    def _billing(self) -> Resource:
        found: Resource = {
            "name": f"projects/{self.cloud.project}/billingInfo",
            "projectId": self.cloud.project,
            "billingEnabled": self.project.billing_enabled,
        }
        account = "billingAccounts/014711-081500-471108"
        return found | ({"billingAccountName": account} if self.project.billing_enabled else {})

    def _skus(self, call: Call, _: Query, __: Resource) -> Resource:
        items, token = page(skus(), _paging(call), self.page_size)
        return {"skus": items, "nextPageToken": token}

    def _profile(self, user: str) -> Resource:
        if user not in OS_LOGIN:
            raise Refused(403, "forbidden", f"The caller may not see the profile of {user}.")
        account = {
            "username": OS_LOGIN[user],
            "uid": "4711",
            "gid": "4711",
            "homeDirectory": f"/home/{OS_LOGIN[user]}",
            "shell": "/bin/bash",
            "primary": True,
            "operatingSystemType": "LINUX",
            "accountId": self.cloud.project,
        }
        keys = {
            fingerprint: {"fingerprint": fingerprint, **key}
            for fingerprint, key in self.project.public_keys.items()
        }
        return {"name": NUMBER, "posixAccounts": [account]} | ({"sshPublicKeys": keys} if keys else {})

    def _import_key(self, call: Call, _: Query, body: Resource) -> Resource:
        until_s = int(body.get("expirationTimeUsec", 10**18)) / 1e6
        if until_s <= self.cloud.now().timestamp():
            raise Refused(400, "badRequest", "Expiration time must be in the future.")
        self._profile(call.path["usersId"])
        self.project.public_keys[f"{sum(body['key'].encode()):064x}"] = dict(body)
        return {"loginProfile": self._profile(call.path["usersId"])}

    def _org_policy(self, call: Call, _: Query, __: Resource) -> Resource:
        name = call.path["policiesId"]
        return {
            "name": f"projects/{NUMBER}/policies/{name}",
            "spec": {"rules": [{"enforce": self.project.org_policies.get(name, False)}]},
        }


def _paging(call: Call) -> dict[str, str]:
    """These services give less than was asked for, where Compute Engine refuses: the catalogue's pages have 5,000."""
    found = {"pageToken": call.query["pageToken"]} if "pageToken" in call.query else {}
    return found | {"maxResults": str(min(500, int(call.query.get("pageSize", 500))))}
