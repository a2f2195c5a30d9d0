"""On an NVIDIA GPU: `pytest -m gpu tests/remote/test_gpu.py`. The same accuracy as on the processor, the same bits again.

Each run is a process of its own; one that must not see the GPU is started without it.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from remote.contract import document
from remote.contract.layout import RunFolder
from remote.contract.metrics import Metrics
from tests.remote import fixtures
from tests.remote.drawn import draw

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
SCENARIOS: dict[str, dict[str, Any]] = {
    "fixed-extractor": {},
    "initial-layers": {},
    "fine-tune-top": {"epochs": 3},
    "fine-tune-all": {"epochs": 3},
    "from-scratch": {"epochs": 8, "augmentation": "strong", "mixup": 0.2},
}
TRAINED = ("fine-tune-top", "fine-tune-all", "from-scratch")
TOLERANCE = 0.1  # of accuracy, on 60 images; bf16 and other orders of adding move a few

# Checkpoints at every step; memory of the GPU as if it were a smaller one.
_TRAIN = """
import sys
from pathlib import Path
if int(sys.argv[2]):
    import torch
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(int(sys.argv[2]) / total)
from remote.train import main
sys.exit(main(Path(sys.argv[1]), checkpoint_least_s=0.0, checkpoint_times_cost=0.0))
"""


def start(run: RunFolder, *, gpu: bool = True, memory_bytes: int = 0) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    if not gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-c", _TRAIN, str(run.spec), str(memory_bytes)]
    return subprocess.Popen(command, env=environment)


def finished(run: RunFolder, **how: Any) -> Metrics:
    assert start(run, **how).wait(timeout=280) == 0, run.events.read_text()
    return document.decode(Metrics, (run.result / "metrics.json").read_bytes(), what="metrics.json")


def model(run: RunFolder) -> str:
    return hashlib.sha256((run.result / "model" / "model.safetensors").read_bytes()).hexdigest()


def put(folder: Path, scenario: str, **parameters: Any) -> RunFolder:
    """A run on a machine of its own, which has computed nothing yet."""
    machine = fixtures.home(folder / "home")
    dataset = fixtures.pack_folder(machine, draw(folder / "images", train=60, val=30))
    asked = {"image_size": 64, "batch_size": 16, **SCENARIOS[scenario], **parameters}
    return fixtures.put_run(machine, dataset, scenario=scenario, model="resnet18", **asked)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_it_gets_as_far_as_on_the_processor(tmp_path: Path, scenario: str) -> None:
    on_gpu = finished(put(tmp_path / "gpu", scenario))
    on_processor = finished(put(tmp_path / "cpu", scenario), gpu=False)
    assert "cores" in on_processor.device and "cores" not in on_gpu.device
    assert abs(on_gpu.result.accuracy - on_processor.result.accuracy) <= TOLERANCE
    assert on_gpu.training["peak_gpu_memory_mb"] > 0
    assert "peak_gpu_memory_mb" not in on_processor.training


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_and_gone_on_it_ends_with_the_same_bits(tmp_path: Path, scenario: str) -> None:
    whole = put(tmp_path / "whole", scenario)
    finished(whole)
    killed = put(tmp_path / "killed", scenario)
    process = start(killed)
    try:
        if scenario in TRAINED:
            while process.poll() is None and len(list(killed.checkpoints.glob("checkpoint-*.pt"))) < 2:
                time.sleep(0.005)
        else:
            time.sleep(8)  # anywhere in its extraction
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished(killed)
    assert model(killed) == model(whole)


def test_too_little_memory_halves_the_batch(tmp_path: Path) -> None:
    run = put(tmp_path, "from-scratch", epochs=1, image_size=224, batch_size=64, precision="fp32")
    metrics = finished(run, memory_bytes=1_500_000_000)
    assert 2 <= metrics.training["micro_batch"] < 64
    assert b"Out of memory in epoch 1" in run.events.read_bytes()


@pytest.mark.parametrize("scenario", ["fine-tune-all", "from-scratch"])
def test_compiled_passes_learn_as_well(tmp_path: Path, scenario: str) -> None:
    """Where a compiler is missing on the machine this says so, and nothing is lost."""
    compiled = finished(put(tmp_path / "on", scenario, compile="on"))
    plain = finished(put(tmp_path / "off", scenario, compile="off"))
    assert compiled.training["exact_resume"] == (not compiled.training["compiled"])
    assert abs(compiled.result.accuracy - plain.result.accuracy) <= TOLERANCE


def test_the_supervisor_sees_how_much_of_the_gpu_is_in_use(tmp_path: Path) -> None:
    """Through the driver, without torch: another process takes a gigabyte."""
    from remote.job.resources import Gauge

    program = "import torch; kept = torch.empty(2**30, dtype=torch.uint8, device='cuda'); print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None and other.stdout is not None
        other.stdout.readline()
        gauge = Gauge(tmp_path, [0])
        gauge.look()
        other.stdin.write(b"\n")
    used_mb = gauge.read().gpu_memory_mb
    assert used_mb is not None and used_mb > 1000
