"""The wheel, built and installed alone outside the checkout, runs the main job; `infra/` and `configs/` travel in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.e2e.command import Tlvm
from tests.shared_data import shared

_CHECKOUT = Path(__file__).resolve().parents[2]
_SCRIPT = """
import orchestrator, remote
from orchestrator.resources import folder
print(orchestrator.__file__)
print(remote.__file__)
print(*sorted(str(path.relative_to(folder(name).parent)) for name in ("infra", "configs") for path in folder(name).rglob("*")), sep="\\n")
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the wheel of this checkout, and what it depends on, but not the checkout itself."""
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, _CHECKOUT)
    _run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("tlvm-*.whl")
    _run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_everything_travels(python: Path, tmp_path: Path) -> None:
    home = str(python.parents[1])
    package, machines_half, *shipped = _run(python, "-I", "-c", _SCRIPT, cwd=tmp_path).splitlines()
    assert package.startswith(home) and machines_half.startswith(home)
    tracked = _run("git", "ls-files", "infra", "configs", cwd=_CHECKOUT).splitlines()
    assert set(tracked) <= set(shipped)


def test_it_runs_the_main_job(python: Path, tmp_path: Path) -> None:
    tlvm = Tlvm(tmp_path, python)
    few_photos(tmp_path / "photos")
    try:
        result = tlvm(
            "run",
            "fixed-extractor",
            "--data",
            tmp_path / "photos",
            "--model",
            "squeezenet1_1",
            "--weights",
            shared("weights/squeezenet1_1-onnxzoo-fp32.pth"),
            "--json",
        ).document
        assert result["state"] == "SUCCEEDED"
        assert (Path(result["folder"]) / "model" / "model.safetensors").is_file()
    finally:
        tlvm("down", "--yes")


def few_photos(folder: Path) -> None:
    for split, number in (("train", 12), ("val", 6)):
        for name in ("ants", "bees"):
            (folder / split / name).mkdir(parents=True)
            for file in sorted(shared(f"data/hymenoptera/{split}/{name}").glob("*.jpg"))[:number]:
                shutil.copy(file, folder / split / name)


def _run(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
