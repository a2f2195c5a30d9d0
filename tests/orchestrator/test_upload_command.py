"""`tlvm upload` as it is typed: what a terminal is asked, and how it ends when not all could be taken in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.cli.app import main
from orchestrator.config import load
from orchestrator.workflows.data.datasets import resolve
from orchestrator.workflows.workspace import Workspace
from tests.nobody import NOBODY, as_nobody, for_all
from tests.orchestrator.pictures import fill, picture


def typed(folder: Path, home: Path, answer: str) -> tuple[int, str]:
    """`tlvm upload FOLDER` on a terminal where `answer` was typed ahead: how it ended, and what the terminal showed."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("TLVM_")}
    variables |= {"TLVM_DATA_DIR": str(home), "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200"}
    person, terminal = os.openpty()
    with os.fdopen(person, "wb", buffering=0) as hand:
        hand.write(answer.encode())
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "upload", str(folder)],
            cwd=folder.parent,
            env=variables,
            stdin=terminal,
            stdout=subprocess.DEVNULL,
            stderr=terminal,
        )
        os.close(terminal)
        seen = bytearray()
        with suppress(OSError):  # the other side has closed the terminal
            while more := os.read(person, 65536):
                seen += more
        return process.wait(timeout=60), seen.decode()


def test_a_terminal_is_asked_whether_large_photos_travel_smaller(tmp_path: Path) -> None:
    for number in range(6):
        path = tmp_path / "bugs" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            picture(number, "JPEG", (1200, 900)) + bytes(9_000_000)
        )  # as heavy as a good camera's
    code, seen = typed(tmp_path / "bugs", tmp_path / "data", "n\n")
    assert code == 0, seen
    assert "as they are, or about" in seen
    assert "at 512 px; most models see 224. Shrink? [Y/n]" in seen
    workspace = Workspace(load({}, environ={"TLVM_DATA_DIR": str(tmp_path / "data")}, folder=tmp_path))
    assert {max(image.width, image.height) for image in resolve(workspace, None)[2].images} == {1200}


def test_a_file_without_read_permission_is_named_and_the_rest_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 3, also when it is done again; as soon as it can be read, it is taken in."""
    with for_all() as root:
        bugs = fill(root / "bugs", {"ants": 4, "bees": 4})
        closed = bugs / "ants/0000.png"
        closed.chmod(0)
        (root / "data").mkdir()
        if os.geteuid() == 0:
            os.chown(root / "data", NOBODY, NOBODY)
            os.chown(closed, NOBODY, NOBODY)
        monkeypatch.chdir(root)
        monkeypatch.setenv("TLVM_DATA_DIR", str(root / "before"))
        with pytest.raises(SystemExit):
            main(
                ["upload", str(bugs), "--json"]
            )  # what is imported on the way: this user may not read the library
        capsys.readouterr()
        monkeypatch.setenv("TLVM_DATA_DIR", str(root / "data"))
        ends = []
        for permission in (0, 0, 0o600):
            with as_nobody(), pytest.raises(SystemExit) as exit:
                closed.chmod(permission)
                main(["upload", str(bugs), "--json"])
            said = capsys.readouterr()
            (result,) = json.loads(said.out)["items"]
            ends.append((exit.value.code, result["images"], [item["reason"] for item in result["missed"]]))
    assert ends[:2] == [(3, 7, ["no permission to read it"])] * 2
    assert ends[2] == (0, 8, [])
