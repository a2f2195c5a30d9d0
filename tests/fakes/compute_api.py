"""The calls of the fake Compute Engine: one that was recognised in, the answer's document out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes import compute_rules as rules
from tests.fakes.compute_catalogue import link
from tests.fakes.compute_cloud import NUMBER, Cloud, not_found
from tests.fakes.compute_faults import Refused, forbidden, permission
from tests.fakes.compute_instance_calls import InstanceCalls, fingerprint
from tests.fakes.compute_listing import matching, ordered, page
from tests.fakes.discovery import Call, Unexpected, discovery

Resource = dict[str, Any]

_COLLECTIONS = {
    "zoneOperations": "operations",
    "regionOperations": "operations",
    "globalOperations": "operations",
}
_KINDS = {
    "addresses": "address", "imageFamilyViews": "imageFamilyView",
}  # fmt: skip
_MADE = {"firewalls", "disks", "addresses"}  # beside instances
_FIREWALL = {"direction": "INGRESS", "priority": 1000, "disabled": False}


class Api:
    """page_size                of lists; the real one gives 500
    wait_s                   how long `wait` holds its answer back; the real one: two minutes
    refused_permissions      what the caller may not do: "compute.instances.create"
    """

    def __init__(
        self,
        cloud: Cloud,
        instances: InstanceCalls,
        refused_permissions: set[str],
        page_size: int,
        wait_s: float,
    ) -> None:
        self.cloud = cloud
        self.instances = instances
        self.page_size = page_size
        self.wait_s = wait_s
        self.refused_permissions = refused_permissions
        self._discovery = discovery("compute.v1")

    def recognise(self, verb: str, path: str, query: Mapping[str, list[str]], body: Any) -> Call:
        call = self._discovery.call(verb, path, query, more={"returnPartialSuccess"})
        if body is not None:
            self._discovery.check_body(call, body)
        return call

    def mistake(self, call: Call, answer: Resource) -> str:
        return self._discovery.mistake(call, answer)

    def perform(self, call: Call, body: Resource | None) -> Resource:
        project = call.path["project"]
        target = "/".join(["projects", project, *list(call.path.values())[1:]])
        if permission(call.name) in self.refused_permissions:
            raise forbidden(permission(call.name), target)
        if call.name.startswith("images."):
            return self._images(call, project)
        if project not in {self.cloud.project, NUMBER} and call.name != "imageFamilyViews.get":
            raise Refused(
                403,
                "forbidden",
                f"Required '{permission(call.name)}' permission for 'projects/{project}' (or it may not exist)",
            )
        for place in ("zone", "region"):
            if place in call.path and call.name.split(".")[0] != f"{place}s":
                self._check_place(f"{place}s", call.path[place])
        if handler := self._special(call.name):
            return handler(call, body or {})
        resource, method = call.name.split(".")
        collection = _COLLECTIONS.get(resource, resource)
        if method == "get":
            return self._shown(collection, self._found(call, collection))
        if method == "list":
            scope = _scope(call)
            found = [
                self._shown(collection, item)
                for (place, _), item in self.cloud.resources[collection].items()
                if place == scope
            ]
            return self._listed(call, found, {"selfLink": link(project, scope, collection, "")})
        if method == "aggregatedList":
            return self._aggregated(call, collection)
        if collection in _MADE and method in {"insert", "delete", "patch", "update", "setLabels"}:
            return self._change(call, collection, method, body or {})
        raise Unexpected(501, f"{call.name} is not part of this fake")

    def _special(self, name: str) -> Callable[[Call, Resource], Resource] | None:
        instances = self.instances

        def instance(call: Call) -> tuple[str, str]:
            return f"zones/{call.path['zone']}", call.path["instance"]

        def once(act: Callable[[Call, Resource], Resource]) -> Callable[[Call, Resource], Resource]:
            return lambda call, body: self.cloud.once(
                f"{call.name} {sorted(call.path.items())}",
                call.query.get("requestId", ""),
                lambda: act(call, body),
            )

        return {
            "instances.insert": once(lambda call, body: instances.insert(f"zones/{call.path['zone']}", body)),
            "instances.delete": once(lambda call, _: instances.delete(*instance(call))),
            "instances.stop": once(lambda call, _: instances.stop(*instance(call))),
            "instances.start": once(lambda call, _: instances.start(*instance(call))),
            "instances.setScheduling": once(
                lambda call, body: instances.set_scheduling(*instance(call), body)
            ),
            "instances.setMetadata": once(lambda call, body: instances.set_metadata(*instance(call), body)),
            "instances.setLabels": once(lambda call, body: instances.set_labels(*instance(call), body)),
            "instances.getGuestAttributes": lambda call, _: instances.guest_attributes(
                *instance(call), call.query.get("queryPath", ""), call.query.get("variableKey", "")
            ),
            "instances.getSerialPortOutput": lambda call, _: instances.serial_port(
                *instance(call), int(call.query.get("start", 0))
            ),
            "imageFamilyViews.get": lambda call, _: {
                "image": rules.newest(self.cloud, call.path["project"], call.path["family"])
            },
            "projects.get": lambda *_: self._project(),
            "zoneOperations.wait": self._wait,
            "regionOperations.wait": self._wait,
            "globalOperations.wait": self._wait,
        }.get(name)

    def _wait(self, call: Call, _: Resource) -> Resource:
        operation = self._found(call, "operations")
        self.cloud.wait(operation, self.wait_s)
        return operation

    def _found(self, call: Call, collection: str) -> Resource:
        scope, name = _scope(call), list(call.path.values())[-1]
        if collection in {"zones", "regions"}:
            scope = ""
        for (place, _), item in self.cloud.resources[collection].items():
            if place == scope and name in {item["name"], item["id"]}:
                return item
        raise not_found(self.cloud.path(scope, collection, name))

    def _shown(self, collection: str, item: Resource) -> Resource:
        """A resource with what changes by itself."""
        if collection == "regions":
            limits = self.cloud.region_quotas[item["name"]]
            return item | {"quotas": self._quotas(limits, item["name"])}
        return item

    def _project(self) -> Resource:
        cloud = self.cloud
        entries = [{"key": key, "value": value} for key, value in cloud.metadata.items()]
        return {
            "kind": "compute#project",
            "id": NUMBER,
            "name": cloud.project,
            "selfLink": link(cloud.project, "", "", ""),
            "creationTimestamp": "2026-01-01T00:00:00.000-08:00",
            "commonInstanceMetadata": {
                "kind": "compute#metadata",
                "fingerprint": fingerprint(entries),
                **({"items": entries} if entries else {}),
            },
            "quotas": self._quotas(cloud.project_quotas, ""),
            "defaultServiceAccount": f"{NUMBER}-compute@developer.gserviceaccount.com",
            "defaultNetworkTier": "PREMIUM",
            "xpnProjectStatus": "UNSPECIFIED_XPN_PROJECT_STATUS",
        }

    def _quotas(self, limits: Mapping[str, float], region: str) -> list[Resource]:
        used = rules.usage(self.cloud, region)
        return [
            {"metric": metric, "limit": float(limit), "usage": float(used.get(metric, 0))}
            for metric, limit in limits.items()
        ]

    def _images(self, call: Call, project: str) -> Resource:
        if project not in self.cloud.images:
            raise forbidden(permission(call.name), f"projects/{project}")
        if call.name == "images.getFromFamily":
            return rules.newest(self.cloud, project, call.path["family"])
        known = self.cloud.images[project]
        if call.name == "images.get":
            name = call.path["image"]
            if ("global", name) not in known:
                raise not_found(f"projects/{project}/global/images/{name}")
            return known["global", name]
        if call.name == "images.list":
            where = {"selfLink": link(project, "global", "images", "")}
            return self._listed(call, list(known.values()), where)
        raise Unexpected(501, f"{call.name} is not part of this fake")

    def _listed(self, call: Call, found: list[Resource], where: Resource) -> Resource:
        resource = call.name.split(".")[0]
        collection = _COLLECTIONS.get(resource, resource)
        test = matching(call.query.get("filter", ""), self._fields(collection))
        items, token = page(
            ordered([item for item in found if test(item)], call.query), call.query, self.page_size
        )
        answer: Resource = {"kind": f"compute#{_kind(collection)}List", "id": where["selfLink"][37:], **where}
        if items:
            answer["items"] = items
        return answer | ({"nextPageToken": token} if token else {})

    def _aggregated(self, call: Call, collection: str) -> Resource:
        """Every scope, on its page; those without a result carry a warning instead, as the real ones do."""
        test = matching(call.query.get("filter", ""), self._fields(collection))
        found = [
            (scope, self._shown(collection, item))
            for (scope, _), item in sorted(self.cloud.resources[collection].items())
            if test(item) and scope.rpartition("/")[2] not in self.cloud.unreachable
        ]
        items, token = page(found, call.query, self.page_size)
        regions = {"addresses", "subnetworks"}
        places = "regions" if collection in regions else "zones"
        scopes: dict[str, Resource] = {f"{places}/{name}": {} for _, name in self.cloud.resources[places]}
        for scope, item in items:
            scopes.setdefault(scope, {}).setdefault(collection, []).append(item)
        for scope, entry in scopes.items():
            if not entry:
                lost = scope.rpartition("/")[2] in self.cloud.unreachable
                entry["warning"] = {
                    "code": "UNREACHABLE" if lost else "NO_RESULTS_ON_PAGE",
                    "message": f"A given scope cannot be reached: '{scope}'."
                    if lost
                    else f"There are no results for scope '{scope}' on this page.",
                    "data": [{"key": "scope", "value": scope}],
                }
        where = f"projects/{self.cloud.project}/aggregated/{collection}"
        answer: Resource = {
            "kind": f"compute#{_kind(collection)}AggregatedList",
            "id": where,
            "selfLink": link(self.cloud.project, "aggregated", collection, ""),
            "items": scopes,
        }
        if self.cloud.unreachable:
            answer["unreachables"] = [f"{places}/{name}" for name in sorted(self.cloud.unreachable)]
        return answer | ({"nextPageToken": token} if token else {})

    def _change(self, call: Call, collection: str, method: str, body: Resource) -> Resource:
        """Resources that have no life of their own: they are what was sent."""
        key = f"{call.name} {sorted(call.path.items())}"

        def act() -> Resource:
            scope = _scope(call)
            if method == "insert":
                return self._insert(collection, scope, body)
            item = self._found(call, collection)
            if method == "delete":
                if item.get("users"):
                    raise Refused(
                        400,
                        "resourceInUseByAnotherResource",
                        f"The {_kind(collection)} resource '{self.cloud.path(scope, collection, item['name'])}' is already being used by '{item['users'][0].partition('/v1/')[2]}'",
                    )
                return self.cloud.operate("delete", scope, item, lambda: self.cloud.remove(collection, item))

            def changed() -> None:
                item.update(body)

            return self.cloud.operate(method, scope, item, changed)

        return self.cloud.once(key, call.query.get("requestId", ""), act)

    def _insert(self, collection: str, scope: str, body: Resource) -> Resource:
        rules.check_name(body.get("name", ""), "name")
        rules.check_labels(body.get("labels", {}))
        if collection == "firewalls":
            rules.check_firewall(body)
            network = str(body.get("network", "default")).rpartition("/")[2]
            self.cloud.find("networks", "global", network)
            body = _FIREWALL | body | {"network": link(self.cloud.project, "global", "networks", network)}
        elif collection == "disks":
            body = {"status": "READY", "sizeGb": "500", **body}
        else:
            body = {"status": "RESERVED", "address": "203.0.113.7", "addressType": "EXTERNAL", **body}
        made = self.cloud.add(collection, scope, body)
        return self.cloud.operate(
            "insert", scope, made, lambda: None, lambda: self.cloud.remove(collection, made)
        )

    def _check_place(self, places: str, name: str) -> None:
        if ("", name) not in self.cloud.resources[places]:
            raise Refused(403, "forbidden", f"Location {name} is not found or access is unauthorized.")

    def _fields(self, collection: str) -> list[str]:
        return self._discovery.fields(_kind(collection)[0].upper() + _kind(collection)[1:])


def _scope(call: Call) -> str:
    for place in ("zone", "region"):
        if place in call.path and not call.name.startswith(f"{place}s."):
            return f"{place}s/{call.path[place]}"
    return "" if call.name.startswith(("zones.", "regions.")) else "global"


def _kind(collection: str) -> str:
    return _KINDS.get(collection, collection.removesuffix("s"))
