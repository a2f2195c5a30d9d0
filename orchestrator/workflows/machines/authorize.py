"""`tlvm authorize`: another computer of the same owner comes in to a machine, with a key of its own.

Private keys never leave the computer that made them. This computer is let in by the provider, which knows its owner;
for one that may not ask the provider, a computer that may adds the public key that it is told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from orchestrator.errors import ConfigError, ConflictError
from orchestrator.providers.base import MachineState
from orchestrator.workflows.machines.readiness import own_key
from orchestrator.workflows.workspace import Workspace

_KEY = re.compile(r"(ssh-ed25519 AAAA[0-9A-Za-z+/]{64})(?: .{0,200})?")


@dataclass(frozen=True)
class AuthorizeResult:
    machine: str
    public_key: str  # that comes in
    until: datetime  # the end of the machine
    this_computer: bool


def authorize(workspace: Workspace, public_key: str | None = None) -> AuthorizeResult:
    """Let a key in until the end of the machine; twice is success.

    public_key      of another computer, "ssh-ed25519 AAAA..."; None: of this one, made when there is none
    ConfigError     that is no such key
    ConflictError   the machine is somebody else's, or is just being stopped or deleted
    """
    machine = workspace.machine()
    if machine.owner != workspace.settings.owner_label:
        raise ConflictError(
            f"The machine {machine.name} belongs to {machine.owner}",
            next=f"Only {machine.owner} lets computers in; you are {workspace.settings.owner_label}.",
        )
    if machine.state is MachineState.STOPPING:
        raise ConflictError(f"The machine {machine.name} is just being stopped or deleted")
    if public_key is not None:
        found = _KEY.fullmatch(public_key.strip())
        if not found:
            raise ConfigError(
                f"{public_key[:60]!r} is no public key of the kind ssh-ed25519",
                next="On the other computer: ssh-keygen -t ed25519; then give the one line of the .pub file.",
            )
        workspace.provider.authorize(machine.name, found[1], machine.ends)
        return AuthorizeResult(machine.name, found[1], machine.ends, this_computer=False)
    own = own_key(workspace.records, machine.provider, machine.name)
    workspace.provider.authorize(machine.name, own, machine.ends)
    return AuthorizeResult(machine.name, own, machine.ends, this_computer=True)
