"""init and doctor."""

from __future__ import annotations

from orchestrator.render import runs
from orchestrator.render.cloud import request_to
from orchestrator.render.console import Screen
from orchestrator.render.text import columns, duration
from orchestrator.workflows.demo import DemoResult
from orchestrator.workflows.setup.doctor import DoctorResult, Finding
from orchestrator.workflows.setup.init import InitResult
from orchestrator.workflows.setup.init_cloud import said
from remote.contract.wording import count

_WIDTH = 100  # what to do stands in a line of its own where it would not fit
_STYLES = {"ok": "", "warn": "yellow", "fail": "red"}


def written(screen: Screen, result: InitResult) -> None:
    if result.standing is not None and not result.asked:  # else it was told on the way
        screen.line(said(result.standing))
    for note in result.notes:
        screen.line(f"note: {note}", style="yellow")
    if result.bucket:
        how = "created: private, in the machines' region" if result.bucket == "created" else result.bucket
        screen.line(f"{result.store} {how}")
    for request in result.requests:
        request_to(screen, request)
    verb = "Replaced" if result.replaced else "Wrote"
    screen.line(
        f"{verb} {result.file} ({count(result.comments, 'commented line')}), provider {result.provider}"
    )
    screen.next("tlvm doctor")


def examined(screen: Screen, result: DoctorResult) -> None:
    """A line for each finding; the ones that need something say what."""
    rows = [(_word(finding), finding.name, finding.text) for finding in result.findings]
    for line, finding in zip(columns(rows), result.findings, strict=True):
        style = _STYLES[finding.level]
        if finding.next and len(line) + len(finding.next) < _WIDTH:
            screen.line(f"{line} → {finding.next}", style=style)
            continue
        screen.line(line, style=style)
        if finding.next:
            screen.line(f"      → {finding.next}", style=style)
    for script in dict.fromkeys(finding.script for finding in result.findings if finding.script):
        screen.line("what that runs, for whoever owns the project (Cloud Shell takes it, too):")
        for line in script.splitlines():
            screen.line(f"    {line}" if line else "", style="dim")
    exits = f" (exit {result.exit_code})" if result.exit_code else ""
    screen.line(
        f"{count(result.failures, 'failure')}, {count(result.warnings, 'warning')}, "
        f"{duration(result.seconds)}{exits}"
    )
    ready = (
        "tlvm up --dry-run"
        if result.provider == "gce"
        else "tlvm demo, or tlvm run fixed-extractor --data DIR"
    )
    screen.next("what the arrows say, then tlvm doctor again" if result.failures else ready)


def _word(finding: Finding) -> str:
    return finding.level.upper() if finding.level == "fail" else finding.level


def shown(screen: Screen, result: DemoResult) -> None:
    """What the demo transferred, and what came of it."""
    screen.line(result.why)
    if result.source:
        runs.measured(screen, result.source)
    runs.measured(screen, result.run)
    screen.line(
        f"done in {duration(result.seconds)}, free; its machine is gone and nothing was kept", style="green"
    )
    screen.next("tlvm run fixed-extractor --data DIR, on your own images")
