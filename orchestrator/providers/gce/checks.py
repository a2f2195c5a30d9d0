"""What `tlvm doctor` looks at in a project of Google Cloud: who asks, what they may, and what a machine would meet.

Every look is a function of one `Context`, and all of them run at the same time. What can't be read is a warning, never
a failure: only the cloud's own refusal of a machine is proof.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from orchestrator.errors import ConfigError, NotFoundError, TlvmError
from orchestrator.providers.findings import Finding
from remote.contract.wording import listed

from . import checks_bucket, checks_machine
from .checks_context import AUTH, CONFIG, Context
from .errors import setup_script

_APIS = {"compute": "machines", "storage": "the bucket", "iam": "the machines' account"}
_PERMISSIONS = tuple(
    f"compute.{name}"
    for name in (
        "instances.create", "instances.delete", "instances.get", "instances.list", "instances.setMetadata",
        "instances.setLabels", "instances.setTags", "instances.setServiceAccount", "instances.start", "instances.stop",
        "instances.setScheduling", "instances.getGuestAttributes", "instances.getSerialPortOutput", "disks.create",
        "disks.list", "disks.delete", "disks.setLabels", "subnetworks.use", "subnetworks.useExternalIp",
        "firewalls.create", "firewalls.get", "firewalls.list", "firewalls.update", "firewalls.delete",
        "networks.updatePolicy", "addresses.list", "zones.list", "regions.list", "projects.get", "machineTypes.list",
        "acceleratorTypes.list", "zoneOperations.get", "globalOperations.get",
    )
)  # fmt: skip


Look = Callable[[Context], list[Finding]]


def examine(context: Context) -> list[Finding]:
    """The login first: without one, nothing else can be asked."""
    try:
        login = _login(context)
    except TlvmError as error:
        return [Finding("fail", "login", error.what, error.next, error.exit_code)]
    looks: list[tuple[str, Look]] = [
        ("billing", billing),
        ("apis", apis),
        ("permissions", permissions),
        ("account", machine_account),
        ("os login", checks_machine.os_login),
        ("image", checks_machine.image),
        ("zones", checks_machine.zones_and_quotas),
        ("network", checks_machine.network),
        ("ssh", checks_machine.ssh),
        ("clock", checks_machine.clock),
        ("bucket", checks_bucket.bucket),
        ("rights", checks_bucket.rights),
    ]
    with ThreadPoolExecutor(len(looks), thread_name_prefix="doctor") as pool:
        looking = [pool.submit(_look, name, look, context) for name, look in looks]
        found = [finding for one in looking for finding in one.result()]
    return [login, *found]


def billing(context: Context) -> list[Finding]:
    project = context.project
    found = context.services.get(
        "cloudbilling", f"v1/projects/{project}/billingInfo", doing="say whether billing is on"
    )
    if found.get("billingEnabled"):
        return [Finding("ok", "billing", "linked to the project")]
    link = f"https://console.cloud.google.com/billing/linkedaccount?project={project}"
    return [
        Finding("fail", "billing", f"the project {project} has no billing account", f"Link one: {link}", AUTH)
    ]


def apis(context: Context) -> list[Finding]:
    names = [(f"projects/{context.project}/services/{name}.googleapis.com") for name in _APIS]
    found = context.services.get(
        "serviceusage",
        f"v1/projects/{context.project}/services:batchGet",
        [("names", name) for name in names],
        doing="say which APIs are enabled",
    )
    off = [
        str(service["config"]["name"])
        for service in found.get("services", [])
        if service.get("state") != "ENABLED"
    ]
    if not off:
        return [Finding("ok", "apis", f"{', '.join(_APIS)}: enabled")]
    what = ", ".join(f"{name} (for {_APIS[name.partition('.')[0]]})" for name in off)
    command = f"gcloud services enable {' '.join(off)} --project={context.project}"
    return [Finding("fail", "apis", f"not enabled: {what}", f"{command}; takes some minutes", AUTH)]


def permissions(context: Context) -> list[Finding]:
    """What the caller may do in the project."""
    found = context.services.post(
        "cloudresourcemanager",
        f"v1/projects/{context.project}:testIamPermissions",
        {"permissions": list(_PERMISSIONS)},
        doing="say what you may do",
    )
    missing = [name for name in _PERMISSIONS if name not in found.get("permissions", [])]
    if not missing:
        return [Finding("ok", "permissions", "you may make, reach and delete machines")]
    command = (
        f"gcloud projects add-iam-policy-binding {context.project} --member={context.member} "
        "--role=roles/compute.admin"
    )
    return [
        Finding("fail", "permissions", f"you lack {listed(missing, 4)}", f"Ask the owner: {command}", AUTH)
    ]


def machine_account(context: Context) -> list[Finding]:
    """The service account that machines run as: there, and may be used by the caller."""
    account, path = context.account, f"v1/projects/{context.project}/serviceAccounts/{context.account}"
    try:
        context.services.get("iam", path, doing=f"show the service account {account}")
    except (NotFoundError, ConfigError):
        text = f"there is no service account {account}"
        return [Finding("fail", "account", text, context.setup, AUTH, setup_script())]
    body = {"permissions": ["iam.serviceAccounts.actAs"]}
    may = context.services.post("iam", f"{path}:testIamPermissions", body, doing="say who may use it")
    if may.get("permissions"):
        return [Finding("ok", "account", f"machines run as {account}")]
    command = (
        f"gcloud iam service-accounts add-iam-policy-binding {account} --project={context.project} "
        f"--member={context.member} --role=roles/iam.serviceAccountUser"
    )
    return [Finding("fail", "account", f"you may not start machines as {account}", command, AUTH)]


def _login(context: Context) -> Finding:
    text = f"{context.rest.account()}, project {context.project}"
    if not context.rest.counts_for_no_project:
        return Finding("ok", "login", text)
    command = f"gcloud auth application-default set-quota-project {context.project}"
    return Finding(
        "warn", "login", f"{text}; its requests count for none: some APIs may refuse them", command
    )


def _look(name: str, look: Look, context: Context) -> list[Finding]:
    """What the settings name and is not there is a failure; what could not be asked, a warning that says so."""
    try:
        return look(context)
    except ConfigError as error:
        return [Finding("fail", name, error.what, error.next, CONFIG)]
    except TlvmError as error:
        return [Finding("warn", name, f"can't be read: {error.what}", error.next)]
