"""A GPU machine on gce is ready when its GPU really computes; before that no data moves to it, and no run starts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import CloudError, ConfigError, ConnectionLost
from orchestrator.workflows.clock import Clock
from orchestrator.workflows.machines.up import up
from orchestrator.workflows.workspace import Workspace
from tests.fakes import compute_loopback
from tests.fakes.compute_hardware import Boot
from tests.fakes.compute_server import ComputeServer
from tests.needs import need
from tests.orchestrator.gce_workspace import asked, told, workspace

NO_CODE = "CUDA error: no kernel image is available for execution on the device"


@contextmanager
def cloud(folder: Path, *, cuda: str = "") -> Iterator[ComputeServer]:
    need("loopback machines")
    hardware = compute_loopback.LoopbackHardware(folder / "disks", cuda=cuda)
    with ComputeServer(hardware) as server:
        yield server
        assert server.errors == []


def here(server: ComputeServer, folder: Path, **machine: object) -> Workspace:
    more: dict[str, object] = {"zones": "us-central1-a"}
    return workspace(server, folder / "here", gce_more=more, **machine)


def test_a_machine_with_a_gpu_that_computes_is_ready(tmp_path: Path) -> None:
    with cloud(tmp_path) as server:
        made = here(server, tmp_path, accelerator="l4")
        seconds = itertools.count()  # each look at the clock is a second later
        assert up(made, clock=Clock(now=lambda: float(next(seconds)))).made
        assert re.search(r"boot host key pinned after \d+ s\nboot set up after", told(made))
        assert "gpu NVIDIA L4, computes" in told(made)
        assert not up(made).made  # and is not made to compute again


def test_a_torch_without_code_for_the_gpu_is_told_before_any_data_moves(tmp_path: Path) -> None:
    with cloud(tmp_path, cuda=NO_CODE) as server:
        made = here(server, tmp_path, accelerator="l4")
        with pytest.raises(CloudError, match="has no code for its GPU") as caught:
            up(made)
        assert NO_CODE in caught.value.detail and "tlvm down ends it" in caught.value.next
        assert "ready" not in told(made)
        (home,) = (tmp_path / "disks").glob("*/home")
        assert not (home / ".tlvm" / "packs").exists() and not (home / ".tlvm" / "bundles").exists()


def test_a_gpu_that_does_not_compute_yet_is_waited_for(tmp_path: Path) -> None:
    with cloud(tmp_path, cuda="No CUDA GPUs are available") as server:
        with pytest.raises(ConnectionLost) as caught:
            up(here(server, tmp_path, accelerator="l4"), clock=_until(tmp_path, ".asked-to-compute"))
        assert "does not compute yet" in caught.value.detail


class OneIsDead(compute_loopback.LoopbackHardware):
    """The driver sees one GPU less than the machine has."""

    def start(self, boot: Boot) -> str:
        return super().start(replace(boot, gpus=boot.gpus[:-1]))


def test_a_machine_that_sees_fewer_gpus_than_it_pays_for_is_not_ready(tmp_path: Path) -> None:
    need("loopback machines")
    with ComputeServer(OneIsDead(tmp_path / "disks")) as server:
        with pytest.raises(ConnectionLost) as caught:
            made = here(server, tmp_path, accelerator="l4", accelerator_count=2)
            up(made, clock=_until(tmp_path, ".asked-of-the-driver"))
        assert "1 of 2 GPUs" in caught.value.detail
        assert server.errors == []


@pytest.mark.parametrize("accelerator", ["p100", "v100"])
def test_a_generation_that_torch_dropped_costs_nothing(tmp_path: Path, accelerator: str) -> None:
    with cloud(tmp_path) as server:
        zones = {"zones": "us-central1"}
        made = workspace(server, tmp_path / "here", gce_more=dict(zones), accelerator=accelerator)
        for dry_run in (True, False):
            with pytest.raises(ConfigError, match="can't compute"):
                up(made, dry_run=dry_run)
        assert asked(server) == []
        assert all(request.method == "GET" for request in server.requests)


def _until(folder: Path, left: str) -> Clock:
    """Whose time stands still until the machine has left that file in its home, and then is over."""
    return Clock(now=lambda: 1e6 if any(folder.glob(f"disks/*/home/{left}")) else 0.0)
