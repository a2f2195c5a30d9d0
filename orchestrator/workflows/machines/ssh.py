"""`tlvm ssh`: a shell on the machine, one command, or its ports on this computer."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from orchestrator.errors import ConfigError
from orchestrator.workflows.workspace import Workspace

_FORWARD = re.compile(r"(?:(?P<local>\d{1,5}):)?(?P<host>[^:\s]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")


@dataclass(frozen=True)
class Forward:
    """127.0.0.1:local_port of this computer leads to host:port as the machine sees it."""

    local_port: int
    host: str
    port: int


@dataclass(frozen=True)
class SshResult:
    machine: str
    exit_code: int
    stdout: str = ""  # of a captured command
    stderr: str = ""


def ssh(
    workspace: Workspace,
    command: Sequence[str] = (),
    *,
    forwards: Sequence[str] = (),
    capture: bool = False,
    wait: Callable[[], object] | None = None,
) -> SshResult:
    """A shell without a command; with forwards alone, the ports stay open until `wait` returns (for ever).

    command    words; one word is given to the machine's shell as it is, several are quoted
    forwards   LOCAL:HOST:PORT, as for ssh -L; HOST:PORT takes the same port here
    capture    give back what the command writes instead of showing it
    """
    wanted = [forward(text) for text in forwards]
    machine = workspace.machine()
    line = command[0] if len(command) == 1 else shlex.join(command)
    with ExitStack() as stack:
        connection = stack.enter_context(workspace.connect(machine))
        for one in wanted:
            port = stack.enter_context(connection.forward(one.local_port, one.host, one.port))
            workspace.progress.say("forward", f"127.0.0.1:{port} is {one.host}:{one.port} of {machine.name}")
        if capture:
            output = connection.run(line or "true", timeout_s=24 * 3600)
            return SshResult(
                machine.name,
                output.exit_code,
                output.stdout.decode(errors="replace"),
                output.stderr.decode(errors="replace"),
            )
        if wanted and not command:
            workspace.progress.say("forward", "open until Ctrl-C")
            (wait or threading.Event().wait)()
            return SshResult(machine.name, 0)
        return SshResult(machine.name, connection.interactive(line or None))


def forward(text: str) -> Forward:
    """Read LOCAL:HOST:PORT, HOST:PORT or PORT; ConfigError for anything else."""
    if text.isdigit():
        text = f"localhost:{text}"
    found = _FORWARD.fullmatch(text)
    if found:
        port = int(found["port"])
        local = int(found["local"]) if found["local"] else port
        if 0 <= local <= 65535 and 0 < port <= 65535:
            return Forward(local, found["host"].strip("[]"), port)
    raise ConfigError(
        f"-L {text!r} is not LOCAL:HOST:PORT", next="For example: tlvm ssh -L 6006:localhost:6006"
    )
