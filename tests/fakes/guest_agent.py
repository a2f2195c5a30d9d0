#!/usr/bin/python3
"""The first process of a container that stands in for a machine of Compute Engine: what Google's images do at boot.

    python3 guest_agent.py HOST:PORT    of the machine's metadata server

Brings the metadata server to its real addresses, makes host keys and publishes them, lets in who the metadata names
(now and when it changes), runs the startup script as root with the serial port as its output, and ends with SIGTERM
(the power button) or `poweroff`. Standard library only, as it runs in the machine.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

_ADDRESS = "169.254.169.254"
_BIN = Path("/usr/local/bin")
_HOST_KEY = Path("/etc/ssh/ssh_host_ed25519_key")


def main(host: str) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    for name in ("poweroff", "shutdown", "halt"):
        write(_BIN / name, "#!/bin/sh\nkill -TERM $(cat /run/guest-agent.pid)\n")
    Path("/run/guest-agent.pid").write_text(str(os.getpid()))
    if not Path("/usr/bin/curl").exists():
        write(_BIN / "curl", CURL)
    gpus = os.environ.get("FAKE_GPUS", "").splitlines()
    if gpus:
        write(_BIN / "nvidia-smi", nvidia_smi(gpus))
    time.sleep(float(os.environ.get("FAKE_BOOT_S", "0")))
    bring_metadata(host)
    metadata = Metadata(_ADDRESS)
    let_in(metadata.keys())
    if not _HOST_KEY.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", _HOST_KEY], check=True)
        kind, key = _HOST_KEY.with_suffix(".pub").read_text().split()[:2]
        metadata.put(f"instance/guest-attributes/hostkeys/{kind}", key)
    Path("/run/sshd").mkdir(exist_ok=True)
    subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-p", "22", "-f", "/etc/tlvm/sshd_config"])
    script = metadata.attribute("startup-script")
    if script:
        write(Path("/run/startup-script"), script)
        subprocess.Popen(["/run/startup-script"], stdin=subprocess.DEVNULL)
    while True:
        let_in(metadata.keys())
        time.sleep(0.5)


def let_in(keys: list[tuple[str, str]]) -> None:
    """An account for each user, and the keys for the SSH server."""
    for user, _ in keys:
        try:
            account = pwd.getpwnam(user)
        except KeyError:
            subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", user], check=True)
            account = pwd.getpwnam(user)
        home = Path(account.pw_dir)
        if not home.is_dir():
            home.mkdir(0o700)
            os.chown(home, account.pw_uid, account.pw_gid)
    write(Path("/etc/tlvm/authorized_keys"), "\n".join([*(key for _, key in keys), ""]), 0o644)


def bring_metadata(host: str) -> None:
    """Answer on 169.254.169.254, port 80, with what the machine's metadata server says."""
    add_address(_ADDRESS)
    listener = socket.create_server((_ADDRESS, 80))
    there = (host.partition(":")[0], int(host.partition(":")[2]))

    def forward() -> None:
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(there)
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=pump, args=(source, target), daemon=True).start()

    threading.Thread(target=forward, daemon=True).start()


def add_address(address: str) -> None:
    """One more address of the loopback interface; there is no `ip` in the image."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        name = b"lo:1".ljust(16, b"\0")
        wanted = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
        fcntl.ioctl(control, 0x8916, name + wanted)  # SIOCSIFADDR


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        target.close()


class Metadata:
    def __init__(self, host: str) -> None:
        self.host = host

    def attribute(self, name: str) -> str:
        try:
            with urllib.request.urlopen(self._request(f"instance/attributes/{name}"), timeout=10) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError:
            return ""

    def keys(self) -> list[tuple[str, str]]:
        return welcome(self._attributes("instance"), self._attributes("project"), datetime.now(UTC))

    def _attributes(self, of: str) -> dict[str, str]:
        asked = self._request(f"{of}/attributes/?recursive=true")
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return dict(json.load(answer))

    def put(self, path: str, value: str) -> None:
        try:
            urllib.request.urlopen(self._request(path, value.encode()), timeout=10).close()
        except urllib.error.HTTPError as error:
            print(f"guest agent: {path}: {error}", flush=True)

    def _request(self, path: str, body: bytes | None = None) -> urllib.request.Request:
        return urllib.request.Request(
            f"http://{self.host}/computeMetadata/v1/{path}",
            data=body,
            headers={"Metadata-Flavor": "Google"},
            method="GET" if body is None else "PUT",
        )


def welcome(instance: dict[str, str], project: dict[str, str], now: datetime) -> list[tuple[str, str]]:
    """Users and keys that metadata lets in: "USER:ssh-ed25519 AAAA...", until `expireOn` where a key names it."""
    if instance.get("enable-oslogin", project.get("enable-oslogin", "")).upper() == "TRUE":
        return []  # OS Login decides then, and the keys are ignored
    lines = instance.get("ssh-keys", "").splitlines()
    if instance.get("block-project-ssh-keys", "").upper() != "TRUE":
        lines += project.get("ssh-keys", "").splitlines()
    found = []
    for line in lines:
        user, _, key = line.partition(":")
        about = key.partition(" google-ssh ")[2]
        if about and datetime.strptime(json.loads(about)["expireOn"], "%Y-%m-%dT%H:%M:%S%z") <= now:
            continue
        if key:
            found.append((user, key))
    return found


def nvidia_smi(gpus: list[str]) -> str:
    """A driver's tool that lists GPUs: as `-L`, or as a query in CSV."""
    listed = "\n".join(f"GPU {number}: {name} (UUID: GPU-{number})" for number, name in enumerate(gpus))
    names = "\n".join(gpus)
    return f"""#!/bin/sh
touch ~/.asked-of-the-driver
case "$*" in
*--query-gpu=*) cat <<'EOF'
{names}
EOF
;;
*) cat <<'EOF'
{listed}
EOF
;;
esac
"""


def python3(command: str, cuda: str) -> str:
    """A `python3` whose torch has a GPU: what computes on it prints, or ends with the error `cuda`. All else is Python's.

    command     what runs Python: "exec /usr/bin/python3"
    """
    program = "echo 4.0" if not cuda else f"echo {shlex.quote(f'RuntimeError: {cuda}')} >&2; exit 1"
    program = f"touch ~/.asked-to-compute; {program}"
    return f"""#!/bin/sh
case "$*" in
*'device="cuda"'*) {program} ;;
*) {command} "$@" ;;
esac
"""


def write(path: Path, content: str, mode: int = 0o755) -> None:
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(content)
    beside.chmod(mode)
    beside.replace(path)


# What the scripts use of curl, which Google's images have: -s -f -m N --retry N -H HEADER -X VERB --data TEXT -o FILE.
CURL = """#!/usr/bin/python3
import sys, time, urllib.error, urllib.request
words, headers, verb, body, out, retries, fail, url = sys.argv[1:], {}, None, None, None, 0, False, ""
while words:
    word = words.pop(0)
    if word in ("-m", "--max-time", "--connect-timeout", "--retry-delay"):
        words.pop(0)
    elif word == "--retry":
        retries = int(words.pop(0))
    elif word in ("-H", "--header"):
        name, _, value = words.pop(0).partition(":")
        headers[name] = value.strip()
    elif word in ("-X", "--request"):
        verb = words.pop(0)
    elif word in ("--data", "--data-binary", "-d"):
        body = words.pop(0).encode()
    elif word in ("-o", "--output"):
        out = words.pop(0)
    elif word == "--fail" or (word[:1] == "-" and word[1:2] != "-" and "f" in word):
        fail = True
    elif word[:1] != "-":
        url = word
while True:
    try:
        asked = urllib.request.Request(url, data=body, headers=headers, method=verb)
        said = urllib.request.urlopen(asked, timeout=30).read()
        break
    except urllib.error.HTTPError as error:
        if fail:
            sys.exit(22)
        said = error.read()
        break
    except OSError:
        if not retries:
            sys.exit(7)
        retries -= 1
        time.sleep(1)
(open(out, "wb") if out else sys.stdout.buffer).write(said)
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
