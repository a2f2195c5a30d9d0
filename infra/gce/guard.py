"""The guard of a rented machine: ends it when nobody needs it any more. Runs on the machine, and needs no laptop.

    python3 guard.py           watch until the end; startup.sh starts it at every boot, as root; one is enough
    python3 guard.py resume    start every run again that is not over, and the one that the metadata names (`tlvm-run`);
                               as the machine's user

Two clocks. The hard one is kept by the cloud, which deletes the machine at its end; four minutes before, the guard asks
the runs to make their checkpoints. A run that knows the end, and that its checkpoint takes longer on its way, has ended by
itself before; four minutes are for all the others, also for one that does not know the end: 20 s until the training has
stopped, and then as long as there is, some 200 s, to bring a checkpoint and the last lines to the bucket. But the cloud counts anew from each start, also from one that nobody asked for (after its
host failed) or that was asked for elsewhere (the console): then the guard ends the machine when its time is over. The soft one is kept here: idle for so long, and the machine ends. A machine is not idle
while a run is active or waiting, while a result is not in the bucket yet, or while somebody types in a terminal.
Following a run's log is not typing. `tlvm extend` moves the soft clock through the instance's metadata. Times of the
cloud are compared with the cloud's clock, as the metadata server tells it: the machine's own may be wrong.

Standard library only, and one file, long as it is: it travels as one value of the machine's metadata, so that a new guard
replaces an old one whole, and it runs before anything else of tlvm is on the machine, on Python 3.10 and later.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path

TICK_S = 10.0
STEP_MAX_S = 60.0  # a clock that jumps makes nobody idle for hours
WARN_S = 240.0  # before the hard end: time to stop, and to bring a checkpoint to the bucket (remote/job/reasons.py)
TELL_S = 30.0  # the soft end is published when it has moved by more; the cloud takes ten writes a minute
OVER_S = 600.0  # after the hard end: by then the cloud has deleted a machine that it has not started again
LEAVE_S = 25.0  # for runs, when the machine shuts down: the cloud gives it 30 s when it takes it away
STILL_S = 300.0  # a deletion that was accepted takes no longer
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED")
API = "https://compute.googleapis.com"
STORAGE_API = "https://storage.googleapis.com"
_TIMEOUT_S = 5.0


class Metadata:
    """The metadata server of the machine: what the cloud and the laptop tell it, and where it answers."""

    def __init__(self, host: str | None = None) -> None:
        host = host or os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
        self._root = f"http://{host}/computeMetadata/v1/instance/"
        self._ahead_s = 0.0

    def ahead_s(self) -> float:
        """By how much the clock of this machine is ahead of the cloud's, as its last answer had it."""
        return self._ahead_s

    def wait(self, path: str, seconds: int) -> str:
        """Its entry once it changes, or after so long; "" when there is no answer."""
        query = f"?wait_for_change=true&timeout_sec={seconds}"
        return self.get(path + query, timeout_s=seconds + _TIMEOUT_S)

    def get(self, path: str, *, timeout_s: float = _TIMEOUT_S) -> str:
        """ "" when there is no such entry, or no answer."""
        try:
            return self._send("GET", path, timeout_s=timeout_s)
        except (urllib.error.URLError, OSError, ValueError):
            return ""

    def attribute(self, name: str) -> str:
        return self.get(f"attributes/{name}").strip()

    def number(self, name: str) -> float:
        try:
            return float(self.attribute(name))
        except ValueError:
            return 0.0

    def publish(self, path: str, value: str) -> bool:
        """As a guest attribute, which the laptop reads through the cloud."""
        try:
            self._send("PUT", f"guest-attributes/{path}", value.encode())
        except (urllib.error.URLError, OSError):
            return False
        return True

    def _send(self, verb: str, path: str, body: bytes | None = None, *, timeout_s: float = _TIMEOUT_S) -> str:
        request = urllib.request.Request(self._root + path, body, {"Metadata-Flavor": "Google"}, method=verb)
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            if date := answer.headers.get("Date"):
                self._ahead_s = time.time() - parsedate_to_datetime(date).timestamp()
            return str(answer.read().decode(errors="replace"))


@dataclass(frozen=True)
class Home:
    """~/.tlvm of the machine's user, as far as the guard reads it (remote/contract/layout.py spells it)."""

    root: Path

    def busy(self) -> str:
        """Why the machine is needed; "" when no run needs it."""
        for lock in sorted((self.root / "locks").glob("run-*")):
            if _is_held(lock):
                return f"{lock.name.removeprefix('run-')} is active"
        for folder, status in self._runs():
            if not _is_over(status):
                return f"{folder.name} has results that are not in the bucket"
        return ""

    def interrupt(self) -> list[str]:
        """Ask the runs that are active to make their checkpoints and publish them."""
        asked = []
        for folder, _ in self._runs():
            pid = _read(folder / "supervisor.json").get("pid")
            if isinstance(pid, int) and pid > 1 and _is_held(self.root / "locks" / f"run-{folder.name}"):
                try:
                    os.kill(pid, signal.SIGTERM)
                except ProcessLookupError:
                    continue
                asked.append(folder.name)
        return asked

    def is_at_rest(self) -> bool:
        """No run is active or waits."""
        return not any(_is_held(lock) for lock in (self.root / "locks").glob("run-*"))

    def newest_bundle(self) -> Path | None:
        """The code that came last, whole."""
        ready = (self.root / "bundles").glob("*/READY")
        newest = max(ready, key=lambda path: path.stat().st_mtime, default=None)
        return newest.parent if newest else None

    def _runs(self) -> Iterator[tuple[Path, dict[str, object]]]:
        for folder in sorted((self.root / "runs").glob("*")):
            if (folder / "status.json").is_file():
                yield folder, _read(folder / "status.json")


@dataclass
class Guard:
    """The two clocks of one machine. `tick` looks once; a test gives it its own time, home and terminals."""

    home: Home
    metadata: Metadata
    end: Callable[[str], None]  # ends the machine: "stop" or "delete"
    now: Callable[[], float] = time.time
    ahead_s: Callable[[], float] = lambda: 0.0  # of the cloud's clock, which the times in the metadata are of
    terminals: Path = Path("/dev/pts")
    say: Callable[[str], None] = print
    quiet_s: float = 0.0
    _last: float | None = None
    _told: float | None = field(default=-1.0)
    _warned: bool = False
    _ended: float | None = None

    def tick(self) -> None:
        now = self.now()
        step_s = min(max(0.0, now - self._last), STEP_MAX_S) if self._last is not None else 0.0
        self._last = now
        reason = self.home.busy()
        self.quiet_s = 0.0 if reason else self.quiet_s + step_s
        if typed := self._typed(now):
            self.quiet_s = min(self.quiet_s, max(0.0, now - typed))
        cloud_now = now - self.ahead_s()
        self._warn(cloud_now)
        ends = self.metadata.number("tlvm-ends")
        if ends and cloud_now >= ends + OVER_S:
            self._tell(ends)
            self._end(now, "its time is over")
            return
        idle_s = self.metadata.number("tlvm-idle-seconds")
        if reason or not idle_s:
            self._tell(None)
            return
        soft_end = max(cloud_now + idle_s - self.quiet_s, self.metadata.number("tlvm-keep-until"))
        soft_end = min(soft_end, ends) if ends else soft_end
        self._tell(soft_end)
        if cloud_now >= soft_end:
            self._end(now, f"idle for {self.quiet_s / 60:.0f} minutes")

    def _end(self, now: float, why: str) -> None:
        if self._ended is None:
            self._ended = now
            self.say(f"{why}: the machine ends")
            self.end(self.metadata.attribute("tlvm-idle-action"))
        elif now - self._ended > STILL_S:
            self._ended = now
            self.say("the machine is still here: it powers off")
            self.end("stop")

    def _typed(self, now: float) -> float:
        """When somebody last typed in a terminal: the kernel notes when its input is read, not what it shows."""
        times = []
        for terminal in self.terminals.glob("[0-9]*"):
            try:
                times.append(terminal.stat().st_atime)
            except OSError:
                continue
        return max((at for at in times if at <= now + STEP_MAX_S), default=0.0)

    def _warn(self, now: float) -> None:
        """Before the hard end, or when the cloud takes the machine away, the runs get time for their checkpoints."""
        ends = self.metadata.number("tlvm-ends")
        soon = bool(ends) and now >= ends - WARN_S
        taken = self.metadata.get("preempted").strip() == "TRUE"
        if (soon or taken) and not self._warned:
            asked = self.home.interrupt()
            self._warned = True
            why = "the machine is taken away" if taken else "the machine's time is over soon"
            self.say(f"{why}; asked to checkpoint: {', '.join(asked) or 'no run is active'}")

    def _tell(self, soft_end: float | None) -> None:
        """For `tlvm status`: when the machine would end, or that it is needed."""
        same = (soft_end is None) == (self._told is None)
        if same and (soft_end is None or abs(soft_end - (self._told or 0.0)) <= TELL_S):
            return
        if self.metadata.publish("tlvm/soft-end", "active" if soft_end is None else str(int(soft_end))):
            self._told = soft_end


def main(arguments: list[str]) -> int:
    metadata = Metadata()
    if arguments == ["resume"]:
        return resume(Home(Path.home() / ".tlvm"), metadata)
    user = metadata.attribute("tlvm-user") or "tlvm"
    alone = os.open(Path(__file__).with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0  # one is enough
    home, taken = Home(_home_of(user) / ".tlvm"), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(leave(home)))
    threading.Thread(target=watch, args=(metadata, taken), daemon=True).start()
    guard = Guard(home, metadata, lambda action: end(metadata, action), ahead_s=metadata.ahead_s)
    while True:
        guard.tick()
        sys.stdout.flush()
        if taken.wait(min(TICK_S, max(1.0, metadata.number("tlvm-idle-seconds") / 3))):
            taken.clear()


def watch(metadata: Metadata, taken: threading.Event) -> None:
    """Until the cloud takes the machine away: of its 30 seconds none is lost."""
    while metadata.wait("preempted", 60).strip() != "TRUE":
        time.sleep(1)
    taken.set()


def leave(home: Home) -> int:
    """The machine shuts down: the runs hear it before the network goes, and get time for their checkpoints."""
    asked = home.interrupt()
    print(
        f"the machine shuts down; asked to checkpoint: {', '.join(asked) or 'no run is active'}", flush=True
    )
    deadline = time.monotonic() + LEAVE_S
    while not home.is_at_rest() and time.monotonic() < deadline:
        time.sleep(0.2)
    return 0


def resume(home: Home, metadata: Metadata) -> int:
    """With the code that came last, or the one that the metadata names; each run then goes on with its own bundle."""
    boot = metadata.attribute("tlvm-run")
    try:
        bundle = _fetched(home, metadata, json.loads(boot)) if boot else home.newest_bundle()
    except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as error:
        print(f"the run that the metadata names can't go on: {error}")
        boot, bundle = "", home.newest_bundle()
    if bundle is None:
        return 0  # nothing ever ran here
    path = os.pathsep.join([str(bundle), str(bundle / "site"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "remote", "resume", *(["--boot"] if boot else [])]
    if ends := metadata.number("tlvm-ends"):
        command += ["--seconds-left", f"{ends - time.time() + metadata.ahead_s():.0f}"]
    environment = {**os.environ, "PYTHONPATH": path.strip(os.pathsep)}
    return subprocess.run(command, cwd=bundle, env=environment, input=boot.encode(), check=False).returncode


def _fetched(home: Home, metadata: Metadata, boot: dict[str, object]) -> Path:
    """The folder of the bundle that the run of the metadata needs; out of the bucket when it is not here."""
    digest, store = str(boot["bundle"]), boot["store"]
    if not re.fullmatch("[0-9a-f]{64}", digest) or not isinstance(store, dict):
        raise ValueError("it names no bundle, or no store")
    folder = home.root / "bundles" / digest
    if (folder / "READY").exists():
        return folder
    bucket, _, prefix = str(store["url"]).removeprefix("gs://").rstrip("/").partition("/")
    key = f"{prefix}/bundles/{digest}.tar".lstrip("/")
    root = str(store.get("endpoint") or STORAGE_API).rstrip("/")
    url = f"{root}/storage/v1/b/{bucket}/o/{urllib.parse.quote(key, safe='')}?alt=media"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {_token(metadata)}"})
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    tar, script = (folder.parent / f".{digest}.{kind}" for kind in ("tar", "py"))
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            tar.write_bytes(answer.read())
        if hashlib.sha256(tar.read_bytes()).hexdigest() != digest:
            raise ValueError(f"{key} in the bucket has another hash")
        with tarfile.open(tar) as archive:
            installer = archive.extractfile("install.py")
            script.write_bytes(installer.read() if installer else b"")
        subprocess.run([sys.executable, script, digest, tar], check=True)
    finally:
        tar.unlink(missing_ok=True)
        script.unlink(missing_ok=True)
    return folder


def end(metadata: Metadata, action: str) -> None:
    """Delete the machine, where its account may; else power it off. A stopped machine still costs its disk."""
    if action == "delete":
        try:
            delete(metadata)
            return
        except (urllib.error.URLError, OSError, ValueError, KeyError) as error:
            print(f"the machine could not delete itself ({error}); it powers off")
    subprocess.run(["poweroff"], check=True)


def delete(metadata: Metadata) -> None:
    zone = metadata.get("zone").strip()  # "projects/123/zones/us-central1-a"
    root = metadata.attribute("tlvm-endpoint") or API
    url = f"{root}/compute/v1/{zone}/instances/{metadata.get('name').strip()}"
    request = urllib.request.Request(
        url, headers={"Authorization": f"Bearer {_token(metadata)}"}, method="DELETE"
    )
    urllib.request.urlopen(request, timeout=30).close()


def _token(metadata: Metadata) -> str:
    """Of the machine's own account."""
    return str(json.loads(metadata.get("service-accounts/default/token"))["access_token"])


def _home_of(user: str) -> Path:
    """As the startup script finds it, too."""
    entry = subprocess.run(["getent", "passwd", user], capture_output=True, text=True, check=True).stdout
    return Path(entry.split(":")[5])


def _is_over(status: dict[str, object]) -> bool:
    return status.get("state") in FINAL and bool(status.get("published"))


def _read(path: Path) -> dict[str, object]:
    """A JSON object; {} of what is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_held(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
