"""The verbs of a provider, on containers of this computer's Docker engine.

A container that passed its deadline ends by itself (infra/docker/entrypoint); what remains of it is removed by the
next verb that meets it, and until then costs a little disk. It can't be told to remove itself: a container with
AutoRemove is gone when it is stopped, and stopped machines are kept.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from orchestrator.errors import CapacityError, CloudError, ConfigError, ConflictError, NotFoundError
from orchestrator.progress import Progress, Silent
from orchestrator.providers.base import Machine, MachineSpec, Offer
from orchestrator.providers.keys import checked_key

from . import image, store_access
from .container import AUTHORIZED_KEYS, HOST_KEY, LABEL, PLACE, arguments, ends, is_ours, machine
from .engine import alone, border, connect

_HOST_KEY_LINE = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{68}")
_STOP_S = 10  # between the polite end and the other one; the entrypoint uses 8
_SMALL_FILE = 1 << 20
_LOG_LINES = 20


class DockerProvider:
    name = "docker"

    def __init__(
        self,
        data_dir: Path,
        progress: Progress | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._lock = data_dir / "docker.lock"
        self._progress = progress or Silent()
        self._now = now

    def offers(self, spec: MachineSpec) -> list[Offer]:
        store_access.check(spec.store)
        with _engine() as engine:
            _check(engine, spec)
        return [Offer(place=PLACE, accelerator=spec.accelerator, price_per_hour=0.0)]

    def create(self, spec: MachineSpec, offer: Offer) -> Machine:
        store_access.check(spec.store)
        with _engine() as engine:
            if found := self._adopt(engine, spec.name):
                return found
            _check(engine, spec)
            name = image.ensure(engine, spec.image, self._lock, self._progress)
            # Docker reserves a name before it lists the container, so of two terminals the second one would neither
            # find it nor get the name.
            with alone(self._lock):
                return self._adopt(engine, spec.name) or self._create(engine, spec, name)

    def get(self, name: str) -> Machine | None:
        with _engine() as engine:
            found = self._ours(engine, name)
            return machine(found, self._now()) if found else None

    def machines(self) -> list[Machine]:
        with _engine() as engine:
            return [
                machine(found, self._now()) for found in self._living(_containers(engine, {"label": LABEL}))
            ]

    def host_keys(self, name: str) -> list[str]:
        with self._existing(name) as container:
            text = _read(container, HOST_KEY)
        line = (text or "").strip()
        return [line] if _HOST_KEY_LINE.fullmatch(line) else []

    def said(self, name: str) -> str:
        with _engine() as engine:
            found = self._ours(engine, name)
            if found is None:
                return ""
            with border(f"read the log of the container {name}"):
                lines = found.logs(tail=_LOG_LINES)
        return str(lines, "utf-8", "replace").strip()

    def authorize(self, name: str, public_key: str, expires: datetime) -> None:
        key = checked_key(public_key)
        options = f'expiry-time="{expires.astimezone(UTC):%Y%m%d%H%M%S}Z"'
        with self._existing(name) as container:
            text = _read(container, AUTHORIZED_KEYS) or _environment(container)["TLVM_PUBLIC_KEY"]
            others = [line for line in text.splitlines() if not line.endswith(key)]
            _write(container, AUTHORIZED_KEYS, "\n".join([*others, f"{options} {key}", ""]))

    def stop(self, name: str) -> None:
        with self._existing(name) as container, border(f"stop the container {name}"):
            if container.status == "paused":
                container.unpause()  # a frozen process hears no signal
            container.stop(timeout=_STOP_S)

    def start(self, name: str) -> None:
        with self._existing(name) as container:
            if container.status == "paused":
                with border(f"continue the container {name}"):
                    container.unpause()
            _start(container, gpus=0)

    def delete(self, name: str) -> None:
        with _engine() as engine:
            _delete(engine, name)

    def _create(self, engine: docker.DockerClient, spec: MachineSpec, image_name: str) -> Machine:
        access = store_access.grant(spec.store)
        try:
            with border(f"create the container {spec.name}"):
                made = engine.containers.create(**arguments(spec, image_name, access, self._now()))
            _start(made, spec.accelerator_count)
        except ConflictError:  # the name went to somebody who does not wait for our lock: theirs stays
            raise
        except BaseException:  # Ctrl-C too, also while Docker was still answering
            _delete(engine, spec.name)
            raise
        return machine(made, self._now())

    @contextmanager
    def _existing(self, name: str) -> Iterator[Container]:
        with _engine() as engine:
            found = self._ours(engine, name)
            if found is None:
                raise NotFoundError(f"There is no machine {name} in Docker", next="tlvm up makes one.")
            yield found

    def _adopt(self, engine: docker.DockerClient, name: str) -> Machine | None:
        """The machine of that name; ConflictError when the name is taken by a container that is not ours."""
        if found := self._ours(engine, name):
            return machine(found, self._now())
        if _containers(engine, _named(name)):
            raise ConflictError(
                f"The name {name} is taken by a container that tlvm did not make; it was not touched",
                next=f"Rename it (docker rename {name} OTHER), or choose another name with --machine.",
            )
        return None

    def _ours(self, engine: docker.DockerClient, name: str) -> Container | None:
        found = _containers(engine, _named(name))
        return next(iter(self._living(found)), None)

    def _living(self, containers: list[Container]) -> list[Container]:
        """Ours, without those whose time is over: what is left of them is removed."""
        ours = [container for container in containers if is_ours(container)]
        over = [container for container in ours if self._is_over(container)]
        for container in over:
            _remove(container)
        return [container for container in ours if container not in over]

    def _is_over(self, container: Container) -> bool:
        """Past its deadline; a container that just ends by itself is given the time that it needs."""
        grace_s = 1.5 * _STOP_S if container.status == "running" else 0
        return ends(container) + timedelta(seconds=grace_s) <= self._now()


@contextmanager
def _engine() -> Iterator[docker.DockerClient]:
    engine = connect()
    try:
        yield engine
    finally:
        engine.close()


def _check(engine: docker.DockerClient, spec: MachineSpec) -> None:
    """ConfigError when this engine can never have what the spec asks for."""
    with border("describe itself"):
        has = engine.info()
    if spec.cpus > has["NCPU"]:
        raise ConfigError(
            f"machine.cpus is {spec.cpus:g}, and Docker has {has['NCPU']}", next="Ask for fewer."
        )
    if spec.memory_gb * 10**9 > has["MemTotal"]:
        raise ConfigError(
            f"machine.memory_gb is {spec.memory_gb:g}, and Docker has {has['MemTotal'] / 10**9:.1f}",
            next="Ask for less, or give Docker more (Docker Desktop: Settings, Resources).",
        )
    if spec.accelerator_count and "nvidia" not in has.get("Runtimes", {}):
        raise ConfigError(
            "This Docker engine can't pass a GPU on: it has no NVIDIA runtime",
            next="Install nvidia-container-toolkit, or ask for none: --accelerator none.",
        )
    mapped = [option for option in has.get("SecurityOptions") or [] if re.search("rootless|userns", option)]
    if mapped and not spec.store.url.startswith("gs://"):
        raise ConfigError(
            f"This Docker engine gives containers other user numbers ({mapped[0]}), so none can write a folder of yours",
            next="Use an engine without that (docker context use default), or --provider local.",
        )


def _containers(engine: docker.DockerClient, filters: dict[str, str | list[str] | bool]) -> list[Container]:
    with border("list its containers"):
        return engine.containers.list(all=True, filters=filters, ignore_removed=True)


def _named(name: str) -> dict[str, str | list[str] | bool]:
    """The filter for exactly that name: Docker's own look-up takes the start of an id, too."""
    return {"name": f"^/{re.escape(name)}$"}


def _start(container: Container, gpus: int) -> None:
    try:
        with border(f"start the container {container.name}"):
            container.start()
            container.reload()
    except CloudError as error:
        if gpus and re.search("nvidia|device driver", error.detail):
            raise CapacityError(
                f"Docker could not give {gpus} GPU(s) to the container {container.name}",
                detail=error.detail,
                next="nvidia-smi shows what is here; ask for fewer, or for none: --accelerator none.",
            ) from error
        raise


def _delete(engine: docker.DockerClient, name: str) -> None:
    for found in _containers(engine, _named(name)):
        if is_ours(found):
            _remove(found)


def _remove(container: Container) -> None:
    """Whatever it does; gone already, or just going, is success."""
    with border(f"remove the container {container.name}"):
        try:
            container.remove(force=True, v=True)
        except NotFound:
            return
        except APIError as error:
            if error.status_code != 409:
                raise


def _environment(container: Container) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in container.attrs["Config"]["Env"])


def _read(container: Container, path: str) -> str | None:
    """A small text file of the container, running or not; None when there is none."""
    with border(f"read {path} of the container {container.name}"):
        try:
            pieces, _ = container.get_archive(path)
        except NotFound:
            return None
        packed = b""
        for piece in pieces:
            packed += piece
            if len(packed) > _SMALL_FILE:
                raise CloudError(
                    f"The file {path} of the container {container.name} is not what tlvm put there"
                )
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        file = archive.extractfile(archive.next() or tarfile.TarInfo())
        return file.read().decode("ascii", errors="replace") if file else None


def _write(container: Container, path: str, text: str) -> None:
    """Replace a file of the container by one that root owns and everyone may read."""
    folder, _, name = path.rpartition("/")
    content = text.encode()
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(member, io.BytesIO(content))
    with border(f"write {path} of the container {container.name}"):
        container.put_archive(folder, packed.getvalue())
