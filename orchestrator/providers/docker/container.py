"""A machine as a container: the arguments that make one, and what its labels and state say."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from docker.models.containers import Container
from docker.types import DeviceRequest, LogConfig

from orchestrator.providers.base import Machine, MachineSpec, MachineState, SshAddress
from orchestrator.providers.keys import checked_key
from remote.contract.run_spec import StoreRef

from .store_access import StoreAccess

PLACE = "Docker on this computer"
SSH_PORT = "2222/tcp"
USER = "tlvm"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"
AUTHORIZED_KEYS = "/etc/tlvm/authorized_keys"
LABEL = "tlvm.machine"  # carries the machine's name; a container without it is not ours

# All of root's capabilities are dropped but these, which the SSH server has and the user's processes never get.
CAPABILITIES = [
    "SETUID", "SETGID",  # become `tlvm` after the key was checked
    "SYS_CHROOT",        # privilege separation: what speaks before that is locked into an empty folder
    "CHOWN",             # give `tlvm` its home and, in `tlvm ssh`, its terminal
    "AUDIT_WRITE",       # Debian's sshd closes a session with a terminal that it can't write to the audit log
]  # fmt: skip
_PIDS = 4096  # loader workers and their threads; a fork bomb ends here
_SHARED_MEMORY = "2g"  # loader workers hand batches over in /dev/shm; Docker's 64 MB are one batch
_LABELS = (
    "tlvm.owner", "tlvm.project", "tlvm.created", "tlvm.expires", "tlvm.accelerator", "tlvm.accelerator-count",
    "tlvm.settings", "tlvm.store",
)  # fmt: skip
_STATES = {
    "created": MachineState.STOPPED,
    "running": MachineState.RUNNING,
    "paused": MachineState.STOPPED,
    "restarting": MachineState.STARTING,
    "removing": MachineState.STOPPING,
    "exited": MachineState.STOPPED,
    "dead": MachineState.STOPPED,
}


def arguments(spec: MachineSpec, image: str, access: StoreAccess, now: datetime) -> dict[str, Any]:
    """What `containers.create` is given. The hard clock, the key and the labels are in it from the start."""
    ends = now + timedelta(hours=spec.max_hours)
    memory = int(spec.memory_gb * 10**9) or None
    gpus = (
        [DeviceRequest(count=spec.accelerator_count, capabilities=[["gpu"]])]
        if spec.accelerator_count
        else None
    )
    return {
        "image": image,
        "name": spec.name,
        "hostname": spec.name[:63],
        "labels": labels(spec, access.ref, now, ends),
        "environment": {
            "TLVM_DEADLINE": str(math.ceil(ends.timestamp())),
            "TLVM_PUBLIC_KEY": checked_key(spec.public_key),
            "TLVM_UID": str(access.uid),
            "TLVM_GID": str(access.gid),
            **access.environment,
        },
        "init": True,  # collects the processes that lost their parent; ends everything when the entrypoint ends
        "ports": {SSH_PORT: ("127.0.0.1", None)},
        "mounts": access.mounts,
        "cap_drop": ["ALL"],
        "cap_add": CAPABILITIES,
        "security_opt": ["no-new-privileges"],
        "mem_limit": memory,
        "memswap_limit": memory,  # the same: no swap, which would hide that memory is short
        "nano_cpus": int(spec.cpus * 10**9) or None,
        "pids_limit": _PIDS,
        "shm_size": _SHARED_MEMORY,
        "device_requests": gpus,
        "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": "1m", "max-file": "2"}),
    }


def labels(spec: MachineSpec, store: StoreRef, created: datetime, ends: datetime) -> dict[str, str]:
    return {
        LABEL: spec.name,
        "tlvm.owner": spec.owner,
        "tlvm.project": spec.project,
        "tlvm.created": created.isoformat(),
        "tlvm.expires": ends.isoformat(),
        "tlvm.accelerator": spec.accelerator,
        "tlvm.accelerator-count": str(spec.accelerator_count),
        "tlvm.settings": json.dumps(spec.settings(), sort_keys=True),
        "tlvm.store": json.dumps(asdict(store), sort_keys=True),
    }


def is_ours(container: Container) -> bool:
    """Made by tlvm under this very name; one that was renamed, or labelled by hand, is not."""
    marks = container.labels
    return marks.get(LABEL) == container.name and all(label in marks for label in _LABELS)


def machine(container: Container, now: datetime) -> Machine:
    marks = container.labels
    state = _STATES.get(container.status, MachineState.STOPPED)
    if state is MachineState.RUNNING and ends(container) <= now:
        state = MachineState.STOPPING
    return Machine(
        name=marks[LABEL],
        provider="docker",
        id=str(container.id),
        place=PLACE,
        state=state,
        owner=marks["tlvm.owner"],
        project=marks["tlvm.project"],
        created=datetime.fromisoformat(marks["tlvm.created"]),
        ends=ends(container),
        accelerator=marks["tlvm.accelerator"],
        accelerator_count=int(marks["tlvm.accelerator-count"]),
        price_per_hour=0.0,
        store=StoreRef(**json.loads(marks["tlvm.store"])),
        ssh=_address(container.attrs),
        settings=json.loads(marks["tlvm.settings"]),
    )


def ends(container: Container) -> datetime:
    return datetime.fromisoformat(container.labels["tlvm.expires"]).astimezone(UTC)


def _address(attributes: Mapping[str, Any]) -> SshAddress | None:
    """Docker chooses the port, anew at each start; there is none while the container does not run."""
    published = (attributes["NetworkSettings"]["Ports"] or {}).get(SSH_PORT)
    return SshAddress("127.0.0.1", int(published[0]["HostPort"]), USER) if published else None
