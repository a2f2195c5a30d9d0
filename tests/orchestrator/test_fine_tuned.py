"""A network trained from nothing stands beside the same one tuned, where that was done on the same images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records import Records, RunRecord
from orchestrator.render.runs import beside_line
from orchestrator.workflows.results.fine_tuned import Beside, beside
from orchestrator.workflows.runs.run import RunResult
from remote.contract import document
from remote.contract.metrics import Counters, Evaluation, Frozen, Metrics

SCRATCH = RunResult(
    run_id="from-scratch-20260808-142530-aaaa",
    scenario="from-scratch",
    dataset="trees",
    dataset_version="a" * 64,
    model="resnet18",
    weights="none",
    machine="m",
    state="SUCCEEDED",
    detached=False,
)
WANTED = {"dataset": "trees", "dataset_version": "a" * 64, "model": "resnet18", "reported": "val"}


def measured(records: Records, folder: Path, run_id: str, accuracy: float, **changes: Any) -> None:
    evaluation = Evaluation(
        "val", "nothing", 100, 90, accuracy, [0.8, 0.95], 0.5, 0.9, 0.9, 0.3, 0.3, 0.1, 0.1, [], []
    )
    metrics = Metrics(
        run_id=run_id,
        scenario="fine-tune-all",
        model="resnet18",
        dataset="trees",
        dataset_version="a" * 64,
        weights="ImageNet V1",
        weights_sha256="",
        seed=0,
        classes=["a", "b"],
        images={"train": 1, "val": 100},
        excluded=0,
        reported="val",
        evaluations=[evaluation],
        temperature=1.0,
        trained_parameters=1,
        frozen=Frozen(0, 0, 0),
        counters=Counters(1, 1, 1),
        images_per_s=1.0,
        seconds={},
        device="cpu",
        versions={},
        training={},
    )
    (folder / run_id).mkdir()
    document.write(folder / run_id / "metrics.json", replace(metrics, **changes))
    records.save_run(RunRecord(run_id, "m", "local", "now", str(folder / run_id)))


def test_the_newest_of_the_same_images_and_network_is_found(tmp_path: Path) -> None:
    records = Records(tmp_path / "records")
    assert beside(records, "from-scratch", WANTED) is None
    measured(records, tmp_path, "fine-tune-all-20260801-142530-bbbb", 0.7)
    measured(records, tmp_path, "fine-tune-all-20260802-142530-cccc", 0.9)
    measured(records, tmp_path, "fine-tune-all-20260803-142530-dddd", 0.8, dataset_version="b" * 64)
    measured(records, tmp_path, "fine-tune-all-20260804-142530-eeee", 0.8, model="resnet34")
    records.save_run(
        RunRecord("fine-tune-all-20260805-142530-ffff", "m", "local", "now", str(tmp_path / "gone"))
    )
    found = beside(records, "from-scratch", WANTED)
    assert found == Beside("fine-tune-all-20260802-142530-cccc", "val", 100, 0.9, [0.8, 0.95])
    assert beside(records, "fixed-extractor", WANTED) is None


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (replace(SCRATCH, scenario="fixed-extractor"), ""),
        (SCRATCH, "not compared yet with tuning old weights on the same images: tlvm run fine-tune-all"),
        (
            replace(
                SCRATCH, beside=Beside("fine-tune-all-20260802-142530-cccc", "val", 100, 0.9, [0.8, 0.95])
            ),
            "fine-tune-all reached 0.900 there (95 %: 0.800 – 0.950; cccc): tlvm compare aaaa cccc",
        ),
    ],
)
def test_the_line_below_the_figure(run: RunResult, says: str) -> None:
    assert beside_line(run) == says
