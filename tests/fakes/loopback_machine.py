"""A machine of the fake Compute Engine without Docker: python -m tests.fakes.loopback_machine FOLDER ADDRESS METADATA

An SSH server on a loopback address, port 22, whose commands run on this computer in a home of their own. It boots the
startup script with commands of its own in front of those that would change this computer (accounts, power, services),
and below TLVM_SYSTEM instead of /. What the script starts in the background needs an account `tlvm`: it ends early.

FOLDER/home     HOME of all that runs there        FOLDER/system   what the startup script takes for /
FOLDER/bin      the commands in front              FOLDER/console  the serial port
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import urllib.error
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import asyncssh

from orchestrator.providers.local_folder import USER, Description
from orchestrator.providers.local_session import serve_session, write_shims
from remote.contract.run_spec import StoreRef
from tests.fakes import guest_agent


def main(arguments: list[str]) -> int:
    folder, address, metadata = Path(arguments[0]), arguments[1], guest_agent.Metadata(arguments[2])
    return asyncio.run(_run(folder, address, metadata))


async def _run(folder: Path, address: str, metadata: guest_agent.Metadata) -> int:
    home, system = folder / "home", folder / "system"
    keys = system / "etc/ssh/ssh_host_ed25519_key"
    keys.parent.mkdir(parents=True, exist_ok=True)
    home.mkdir(exist_ok=True)
    _write_commands(folder, metadata.host)
    first = not keys.exists()
    if first:
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(keys)
        key.write_public_key(keys.with_suffix(".pub"))
    off = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, off.set)
    with suppress(TimeoutError):
        await asyncio.wait_for(off.wait(), float(os.environ.get("FAKE_BOOT_S", "0")))
        return 0
    now = datetime.now(UTC).isoformat()
    about = Description("fake", os.environ["TLVM_MACHINE_ID"], "", "", now, now, "none", 0, StoreRef(""), {})
    acceptor = await asyncssh.listen(
        address,
        22,
        server_factory=lambda: _Doorman(metadata),
        server_host_keys=[str(keys)],
        process_factory=lambda process: serve_session(process, home, about),
        sftp_factory=True,
        encoding=None,
        line_editor=False,
        allow_scp=False,
        reuse_address=True,
    )
    os.chdir(home)  # where SFTP's relative paths begin
    print(f"Server listening on {address} port 22.", flush=True)
    if first:
        kind, value = keys.with_suffix(".pub").read_text().split()[:2]
        await asyncio.to_thread(metadata.put, f"instance/guest-attributes/hostkeys/{kind}", value)
    await _run_startup_script(folder, metadata)
    await off.wait()
    acceptor.close()
    return 0


async def _run_startup_script(folder: Path, metadata: guest_agent.Metadata) -> None:
    home = folder / "home"
    script = await asyncio.to_thread(metadata.attribute, "startup-script")
    if script:
        environment = {
            **os.environ,
            "PATH": f"{folder / 'bin'}:{home / '.bin'}:{os.environ['PATH']}",
            "TLVM_SYSTEM": str(folder / "system"),
            "GCE_METADATA_HOST": metadata.host,
            "HOME": str(home),
        }
        guest_agent.write(folder / "startup-script", script)
        await asyncio.create_subprocess_exec(
            folder / "startup-script", env=environment, stdin=asyncio.subprocess.DEVNULL
        )


class _Doorman(asyncssh.SSHServer):
    """Lets in whom the metadata names at this moment."""

    def __init__(self, metadata: guest_agent.Metadata) -> None:
        self._metadata = metadata

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        shown = " ".join(key.export_public_key().decode().split()[:2])
        try:
            keys = self._metadata.keys()
        except urllib.error.URLError:
            return False
        return any(user == username and line.startswith(shown) for user, line in keys)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return dest_host in {"localhost", "127.0.0.1"}


def _write_commands(folder: Path, metadata: str) -> None:
    home = folder / "home"
    write_shims(home)
    python = (
        f"export GCE_METADATA_HOST={metadata} GCE_METADATA_IP={metadata}\nexec {shlex.quote(sys.executable)}"
    )
    commands = {
        "id": "exit 0",
        "useradd": "exit 1",
        "getent": f"echo {USER}:x:1:1::{shlex.quote(str(home))}:/bin/sh",
        "runuser": 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"',
        "install": 'for last; do :; done; exec mkdir -p -m 0700 "$last"',  # whose owner has no account here
        "systemctl": "exit 1",
        "systemd-run": "exit 1",
        "python3": f'{python} "$@"',
    }
    power = f"kill -TERM {os.getpid()}"
    commands |= dict.fromkeys(("poweroff", "shutdown", "halt"), power)
    (folder / "bin").mkdir(exist_ok=True)
    for name, command in commands.items():
        guest_agent.write(folder / "bin" / name, f"#!/bin/sh\n{command}\n")
    for name in ("python3", "python"):  # over SSH, too
        guest_agent.write(home / ".bin" / name, f'#!/bin/sh\n{python} "$@"\n')
    if gpus := os.environ.get("FAKE_GPUS", "").splitlines():
        guest_agent.write(home / ".bin" / "nvidia-smi", guest_agent.nvidia_smi(gpus))
        computing = guest_agent.python3(python, os.environ.get("FAKE_CUDA", ""))
        guest_agent.write(home / ".bin" / "python3", computing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
