"""`tlvm demo` is a real transfer without internet, and leaves nothing behind, however it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.command import Tlvm
from tests.processes import living_with


@pytest.fixture
def tlvm(tmp_path: Path) -> Tlvm:
    """Without internet, without weights on this computer, with temporary files in a folder of the test."""
    (tmp_path / "temporary").mkdir()
    unreachable = "http://127.0.0.1:9"
    variables = {
        "TMPDIR": str(tmp_path / "temporary"),
        "TORCH_HOME": str(tmp_path / "torch"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HTTPS_PROXY": unreachable,
        "https_proxy": unreachable,
    }
    return Tlvm(tmp_path, variables=variables)


def test_the_digits_0_to_4_help_to_tell_5_to_9(tlvm: Tlvm, tmp_path: Path) -> None:
    said = tlvm("demo", "--json").document
    assert said["transfer"] == "digits" and "can't be had" in said["why"]
    source, run = said["source"], said["run"]
    assert (source["scenario"], source["weights"], source["dataset"]) == (
        "from-scratch",
        "none",
        "digits-0-4",
    )
    assert (run["scenario"], run["weights"]) == ("fixed-extractor", f"run {source['run_id']}")
    metrics = run["metrics"]
    assert metrics["classes"] == ["eight", "five", "nine", "seven", "six"]
    result = next(found for found in metrics["evaluations"] if found["split"] == metrics["reported"])
    assert result["chose"] == "nothing"
    assert result["accuracy_interval"][0] > 0.7
    frozen = metrics["frozen"]
    assert frozen["equal"] == frozen["tensors"] > 100
    nothing_is_left(tmp_path)


def test_ctrl_c_ends_it_and_leaves_nothing(tlvm: Tlvm, tmp_path: Path) -> None:
    tlvm.interrupted("demo", at="run ")
    nothing_is_left(tmp_path)


def nothing_is_left(tmp_path: Path) -> None:
    """No file of the demo (torch itself keeps a folder of its own), and no process that names one."""
    assert list((tmp_path / "temporary").glob("tlvm*")) == []
    assert living_with(str(tmp_path / "temporary")) == []
