"""Machines of the fake Compute Engine as containers: they boot, run the startup script, and are reached by real SSH.

The image is that of the provider `docker` (Debian, torch, OpenSSH); `guest_agent` is the first process in it, in place
of what Google's images bring. The external address is the container's on Docker's bridge, so this needs Linux.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from orchestrator.progress import Progress
from orchestrator.providers.docker import engine, image
from orchestrator.resources import folder
from tests.fakes.compute_hardware import Boot

_GUEST = Path(__file__).with_name("guest_agent.py")
LABEL = "tlvm-tests.fake-compute"
_POWER_BUTTON_S = 3  # from SIGTERM to the plug


class ContainerHardware:
    """cpus, memory     of each container
    boot_s              from power on until anything answers, in real seconds
    mounts              what else a container sees: {"/host/folder": {"bind": "/folder", "mode": "ro"}}
    """

    def __init__(
        self,
        *,
        progress: Progress,
        cpus: float = 2.0,
        memory: str = "3g",
        boot_s: float = 0.0,
        mounts: dict[str, dict[str, str]] | None = None,
    ) -> None:
        self._client: docker.DockerClient = engine.connect()
        lock = Path(tempfile.gettempdir()) / "tlvm-tests-image.lock"
        self._image = image.built(self._client, folder("infra") / "docker", lock, progress)
        self._boot_s = boot_s
        self._options: dict[str, Any] = {"nano_cpus": int(cpus * 10**9), "mem_limit": memory}
        self._volumes = {str(_GUEST): {"bind": "/usr/local/sbin/guest_agent.py", "mode": "ro"}} | (
            mounts or {}
        )
        self._containers: dict[str, Container] = {}

    @property
    def gateway(self) -> str:
        """This computer, as containers see it: what they ask must listen there."""
        bridge = self._client.networks.get("bridge").attrs
        return str(bridge["IPAM"]["Config"][0]["Gateway"])

    def start(self, boot: Boot) -> str:
        container = self._containers.get(boot.id) or self._make(boot)
        container.start()
        container.reload()
        networks = container.attrs["NetworkSettings"]["Networks"]
        return str(networks["bridge"]["IPAddress"])

    def stop(self, id: str) -> None:
        if id in self._containers:
            self._containers[id].stop(timeout=_POWER_BUTTON_S)

    def remove(self, id: str) -> None:
        container = self._containers.pop(id, None)
        if container is not None:
            try:
                container.remove(force=True, v=True)
            except NotFound:
                return

    def is_on(self, id: str) -> bool:
        if id not in self._containers:
            return False
        self._containers[id].reload()
        return bool(self._containers[id].status == "running")

    def console(self, id: str) -> str:
        try:
            return self._containers[id].logs().decode(errors="replace") if id in self._containers else ""
        except APIError:  # being removed
            return ""

    def close(self) -> None:
        for id in list(self._containers):
            self.remove(id)
        self._client.close()

    def _make(self, boot: Boot) -> Container:
        host = boot.metadata(self.gateway)
        made = self._client.containers.create(
            self._image,
            entrypoint=["python3", "-u", "/usr/local/sbin/guest_agent.py", host],
            name=f"fake-{boot.name}-{boot.id}",
            hostname=boot.name[:63],
            labels={LABEL: boot.id},
            environment={"FAKE_GPUS": "\n".join(boot.gpus), "FAKE_BOOT_S": str(self._boot_s)},
            extra_hosts={"metadata.google.internal": "169.254.169.254"},
            volumes=self._volumes,
            cap_add=["NET_ADMIN"],  # for the address of the metadata server
            init=True,
            **self._options,
        )
        self._containers[boot.id] = made
        return made
