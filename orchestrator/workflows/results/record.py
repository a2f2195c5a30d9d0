"""`run.json` and `README.md` beside a pulled result: which attempts it took, when, on which machines, and what that cost.

Written by this computer from what the store says of the run, so every computer writes the same. Neither is a file of
the result: no manifest names them, and they are never written over a file that is there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.workflows.runs.attempts import AttemptLine, attempt_lines, counted, ended_as
from orchestrator.workflows.runs.documents import StoredRun
from remote.contract import document

FILES = ("README.md", "run.json")  # the second one last: where it stands, all the others do
_ODD = re.compile(r"[^A-Za-z0-9 .,:+/()_-]+")  # machines and buckets are other people's words
_CELL_MAX = 80


@dataclass(frozen=True)
class RunDocument:
    run_id: str
    state: str
    scenario: str
    dataset: str
    dataset_version: str
    model: str
    weights: str
    seed: int
    owner: str
    project: str
    tlvm_version: str
    created: str  # ISO 8601, as all times
    started: str | None
    finished: str | None
    attempts: list[AttemptLine]  # the oldest first
    seconds: float  # at work on them
    cost: float  # dollars, an estimate from list prices
    schema: int = 1


def run_document(run: StoredRun, state: str) -> RunDocument:
    spec, status, lines = run.spec, run.status, attempt_lines(run)
    return RunDocument(
        run_id=spec.run_id,
        state=state,
        scenario=spec.scenario,
        dataset=spec.dataset.name,
        dataset_version=spec.dataset.version,
        model=spec.model,
        weights=spec.weights.source,
        seed=spec.seed,
        owner=spec.owner,
        project=spec.project,
        tlvm_version=spec.tlvm_version,
        created=spec.created,
        started=status.started if status else None,
        finished=status.finished if status else None,
        attempts=lines,
        seconds=round(sum(line.seconds for line in lines), 3),
        cost=round(sum(line.cost for line in lines), 6),
    )


def write_record(folder: Path, run: StoredRun, state: str, files: set[str]) -> None:
    """Into the folder of the pulled result, which holds `files`; `state` is what its manifest says. OSError."""
    about = run_document(run, state)
    texts = {"README.md": "".join(_page(about, files)), "run.json": document.encode(about)}
    for name in FILES:
        if name not in files:
            _write_new(folder / name, texts[name])


def _write_new(path: Path, text: str) -> None:
    """Whole or not at all, and never in the place of something."""
    if path.exists() or path.is_symlink():
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.link(beside, path)  # which fails where something is, unlike a replacement
    except FileExistsError:
        return
    finally:
        beside.unlink(missing_ok=True)


def _page(about: RunDocument, files: set[str]) -> Iterator[str]:
    yield f"# {_cell(about.run_id)}\n\n"
    yield f"{_cell(about.scenario)} of {_cell(about.model)} ({_cell(about.weights)}) on {_cell(about.dataset)} "
    yield f"{_cell(about.dataset_version)[:8]}: {_cell(about.state.lower())}.\n\n"
    if about.attempts:
        yield "| attempt | machine | place | began | ended | at work | estimated cost |\n"
        yield "|---|---|---|---|---|---|---|\n"
        for line in about.attempts:
            place = f"{_cell(line.provider)}, {_cell(line.place)}{', spot' if line.spot else ''}"
            ended = f"{_cell(line.ended or 'not seen')} {_cell(ended_as(line))}".strip()
            yield f"| {line.number} | {_cell(line.machine)} | {place} | {_cell(line.began)} | {ended} "
            yield f"| {line.seconds:,.0f} s | {_paid(line.cost, line.price_per_hour)} |\n"
        rate = max(line.price_per_hour for line in about.attempts)
        many = f"{counted(about.attempts)}, " if len(about.attempts) > 1 else ""
        paid = f"{_paid(about.cost, rate)}{' (an estimate from list prices)' if rate else ''}"
        yield f"\nTogether {many}{about.seconds:,.0f} s at work, {paid}.\n"
    for name, what in (
        ("model/README.md", "the model card"),
        ("metrics.json", "every figure"),
        ("predictions.csv", "what was said of each image"),
        ("log.txt", "the log"),
    ):
        if name in files:
            yield f"\n* [{name}]({name}): {what}"
    yield "\n\nWritten by tlvm on the computer that pulled the result; `run.json` has the same for programs.\n"


def _paid(dollars: float, per_hour: float) -> str:
    """Free only where nothing is paid, however short it was."""
    if not per_hour:
        return "free"
    return f"about ${dollars:.2f}" if dollars >= 0.01 else "under $0.01"


def _cell(text: str) -> str:
    """Nothing in it can end a cell, begin a link or hide."""
    return _ODD.sub(" ", text)[:_CELL_MAX].strip()
