"""Passes are compiled where that pays; where they can't be, the run says so and goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from remote.contract import document
from remote.contract.metrics import Metrics
from remote.errors import Stopped
from remote.train import main
from remote.training import compiling
from tests.remote import fixtures
from tests.remote.drawn import draw
from tests.remote.test_training import Run, Small

CPU, GPU, APPLE = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
ROOT = Path(__file__).parents[2]


def test_auto_compiles_long_runs_on_a_gpu_with_a_compiler_only() -> None:
    assert compiling.wanted("auto", GPU, images=10**6, crop=224) == (not compiling.lacking(GPU))
    assert not compiling.wanted("auto", GPU, images=10**5, crop=224)
    assert not compiling.wanted("auto", GPU, images=10**6, crop=64)
    assert not compiling.wanted("auto", CPU, images=10**9, crop=224)
    assert not compiling.wanted("auto", APPLE, images=10**9, crop=224)
    for device in (CPU, GPU, APPLE):
        assert compiling.wanted("on", device, images=1, crop=32)
        assert not compiling.wanted("off", device, images=10**9, crop=224)


def test_what_is_lacking_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++")
    assert compiling.lacking(CPU) == "a C++ compiler"
    assert compiling.lacking(APPLE) == "support of mps"
    monkeypatch.setenv("CXX", sys.executable)
    assert compiling.lacking(CPU) == ""


def test_a_run_without_a_compiler_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++")
    machine = fixtures.home(tmp_path / "home")
    dataset = fixtures.pack_folder(machine, draw(tmp_path / "images", train=6, val=2))
    run = fixtures.put_run(machine, dataset, scenario="from-scratch", image_size=32, epochs=1, compile="on")
    assert main(run.spec) == 0
    metrics = document.decode(Metrics, (run.result / "metrics.json").read_bytes(), what="metrics.json")
    assert (metrics.training["compiled"], metrics.training["exact_resume"]) == (False, True)
    assert b"Not compiled, going on without: this machine lacks a C++ compiler" in run.events.read_bytes()


_FAILS = """
import sys
from pathlib import Path
import torch
from remote.training.compiling import compiled
from tests.remote.test_training import Small
module, told = Small().train(), []
before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
forward = compiled(module, torch.rand(4, 3, 6, 6), torch.float32, folder=Path(sys.argv[1]), tell=told.append)
assert forward is module, "it says that it is compiled"
assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
assert all(parameter.grad is None for parameter in module.parameters())
print(*told)
"""


@pytest.mark.soak
def test_a_compiler_that_fails_leaves_the_network_as_it_is(tmp_path: Path) -> None:
    """In a process of its own, as torch reads the compiler's name once; loading its compiler takes ten seconds."""
    environment = {**os.environ, "CXX": "/bin/false", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", _FAILS, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("Not compiled, going on without: "), done.stdout


@pytest.mark.soak
def test_a_compiled_training_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    """It needs a C++ compiler, and half a minute of it."""

    def compiler(module: torch.nn.Module, inputs: torch.Tensor) -> compiling.Forward:
        return compiling.compiled(module, inputs, torch.float32, folder=tmp_path, tell=told.append)

    told: list[str] = []
    whole = Run(compiler=compiler)
    position = whole.fit()
    assert position.compiled and not told
    for stop_at in (4, 8):
        torch._dynamo.reset()  # as in another process
        stopped = Run(compiler=compiler, stop_at=stop_at, module=Small())
        with pytest.raises(Stopped, match="in epoch"):
            stopped.fit()
        torch._dynamo.reset()
        again = Run(compiler=compiler, module=Small(seed=1))
        again.fit(resumed=stopped.saved[-1])
        assert again.weights == whole.weights
