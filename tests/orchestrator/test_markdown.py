"""Markdown for the summary of a CI job, as a renderer of CommonMark with GitHub's tables reads it; hostile text stays text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from orchestrator.errors import RunFailed
from orchestrator.render import markdown
from orchestrator.workflows.machines.down import DownResult
from orchestrator.workflows.results.compare import compare
from orchestrator.workflows.runs.attempts import AttemptLine
from orchestrator.workflows.runs.line import LineError, LineResult, LineRun
from orchestrator.workflows.runs.overview import runs
from orchestrator.workflows.runs.run import RunResult
from tests.orchestrator.finished_runs import image, opened, put_dataset, put_run

_NASTY = "x | y\n# <script>alert(1)</script> ![i](http://evil/i) [l](javascript:x) `c` **b** $a$ @ana www.evil.org \x1b[2J"
_RENDERER = MarkdownIt("commonmark", {"html": True}).enable("table")


def tokens(text: str) -> Iterator[Token]:
    for token in _RENDERER.parse(text):
        yield token
        yield from token.children or []


def rows(text: str) -> list[list[str]]:
    """The cells of each row of each table, as they are shown."""
    found: list[list[str]] = []
    inside = False
    for token in _RENDERER.parse(text):
        if token.type == "tr_open":
            found.append([])
        inside = inside or token.type in ("td_open", "th_open")
        if inside and token.type == "inline":
            found[-1].append("".join(child.content for child in token.children or []))
            inside = False
    return found


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_other_peoples_text_is_one_cell_that_shows_it(text: str) -> None:
    shown = "\n".join(markdown.table([("name", "n"), (text, 1)]))
    found = rows(shown)
    assert len(found) == 2 and found[1][-1] == "1" and len(found[1]) == 2
    kinds = {token.type for token in tokens(shown)}
    assert kinds.isdisjoint(
        {"link_open", "image", "html_inline", "html_block", "code_inline", "strong_open", "em_open"}
    )


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40))
def test_every_printable_character_is_shown_as_it_is(text: str) -> None:
    assert rows("\n".join(markdown.table([("name",), (text,)])))[1] == [text]


def test_addresses_are_no_links_on_github() -> None:
    """Its renderer makes links of bare addresses, where nothing stands between their letters."""
    assert markdown.escaped("see https://evil.org, www.evil.org, a@evil.org") == (
        "see https\\://evil.org, www\\.evil.org, a\\@evil.org"
    )


def finished(folder: Path) -> tuple[Any, list[str]]:
    here = opened(folder)
    images = [image(f"{number}.png", label) for number in range(4) for label in ("birch", "oak")]
    dataset = put_dataset(here, images)
    shares = [[0.9, 0.1] if one.class_name == "birch" else [0.3, 0.7] for one in images]
    worse = [[0.4, 0.6], *shares[1:]]
    return here, [
        put_run(here, "aaaa", dataset, images, shares),
        put_run(here, "bbbb", dataset, images, worse, scenario="fine-tune-all"),
    ]


def result(**changes: Any) -> RunResult:
    known: dict[str, Any] = {
        "run_id": "fixed-extractor-20260807-142530-k3qz",
        "scenario": "fixed-extractor",
        "dataset": "trees",
        "dataset_version": "9f" * 32,
        "model": "resnet18",
        "weights": "ImageNet V1",
        "machine": "tlvm-ana-trees",
        "state": "SUCCEEDED",
        "detached": False,
        "seconds": 41.0,
        "cost": 0.013,
    }
    return RunResult(**(known | changes))


def test_a_run_is_a_head_with_its_figure_and_tables(tmp_path: Path) -> None:
    here, ids = finished(tmp_path)
    from orchestrator.workflows.results.measured import measured

    metrics = dataclasses.asdict(measured(here, ids[0]).metrics)
    line = AttemptLine(
        1, "tlvm-a", "gce", "us-central1-b", True, "2026-08-07T14:25:30+00:00", None, "", 1, 20, 0.01
    )
    text = markdown.run(
        result(
            metrics=metrics,
            down=DownResult("tlvm-ana-trees", was_there=True, deleted=True),
            attempts=[line, dataclasses.replace(line, number=2)],
        )
    )
    assert text.startswith("### fixed-extractor on trees 9f9f9f9f: 1.000 (95 %: ")
    found = rows(text)
    assert ["birch", "4/4", "1.000", "0.51 – 1.00", "1.000"] in found
    assert ["estimated cost", "$0.01"] in found and ["machine", "tlvm-ana-trees, which is gone"] in found
    assert [row[0] for row in found[-2:]] == ["1", "2"]


def test_a_run_whose_words_are_hostile_turns_nothing(tmp_path: Path) -> None:
    here, ids = finished(tmp_path)
    from orchestrator.workflows.results.measured import measured

    found = measured(here, ids[0]).metrics
    classes = [dataclasses.replace(one, name=_NASTY) for one in found.result.classes]
    figures = dataclasses.replace(found.result, classes=classes, chose=_NASTY)
    metrics = dataclasses.asdict(dataclasses.replace(found, evaluations=[figures]))
    for text in (
        markdown.run(result(metrics=metrics, model=_NASTY, weights=_NASTY, machine=_NASTY, scenario=_NASTY)),
        markdown.run(result(metrics={"schema": _NASTY})),
        markdown.run(result(detached=True, ends=_NASTY, machine=_NASTY)),
        markdown.problem(RunFailed(_NASTY, detail=_NASTY, next=_NASTY)),
    ):
        kinds = {token.type for token in tokens(text)}
        assert kinds.isdisjoint({"link_open", "image", "html_inline", "html_block", "strong_open"})
        assert "\x1b" not in text


def test_comparisons_and_lists_are_tables(tmp_path: Path) -> None:
    here, ids = finished(tmp_path)
    found = rows(markdown.compare(compare(here, ids)))
    assert [row[0] for row in found] == ["run", "fixed-extractor", "fine-tune-all"]
    assert found[1][2].startswith("1.000 (") and all(len(row) == 7 for row in found)
    listed = rows(markdown.runs(runs(here)))
    assert sorted(row[0] for row in listed[1:]) == sorted(ids)
    (tmp_path / "empty").mkdir()
    assert "There is no run" in markdown.runs(runs(opened(tmp_path / "empty")))


@pytest.mark.parametrize("words", [["--format", "markdown"], ["--format=markdown"]])
def test_a_command_that_fails_has_a_summary_too(words: list[str], tmp_path: Path) -> None:
    from tests.e2e.command import Tlvm

    answer = Tlvm(tmp_path)("compare", "aaaa", "bbbb", *words, expect=4)
    assert answer.stdout.startswith("### There is no run") and "error" in answer.stderr


def test_a_line_of_runs_is_one_table_with_what_went_wrong() -> None:
    error = LineError("RunFailed", 9, _NASTY, "", "")
    runs = [LineRun("a", "fixed-extractor", result(), None), LineRun("b", "fine-tune-all", None, error)]
    text = markdown.line(LineResult("tlvm-a", False, runs, 9))
    assert text.startswith("### 1 of 2 runs succeeded\n")
    found = rows(text)
    assert [len(row) for row in found] == [6, 6, 6] and found[2][0] == "fine-tune-all"
    waiting = markdown.line(LineResult("tlvm-a", True, runs, 0, "It ends by itself at 18:42."))
    assert "2 runs started on tlvm-a" in waiting and "18:42" in waiting
