"""Machines, as tables and sentences: up, status, ssh, down."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.providers.base import MachineState, Offer
from orchestrator.providers.rented import SshSources
from orchestrator.render.console import Screen
from orchestrator.render.progress import labelled
from orchestrator.render.text import (
    about,
    clock,
    duration,
    folded,
    last_word,
    moment,
    more_than,
    price,
    size,
)
from orchestrator.workflows.machines.authorize import AuthorizeResult
from orchestrator.workflows.machines.down import DownResult
from orchestrator.workflows.machines.left_over import LeftOver
from orchestrator.workflows.machines.refresh import Refreshed
from orchestrator.workflows.machines.ssh import SshResult
from orchestrator.workflows.machines.status import MachineLine, RunLine, StatusResult
from orchestrator.workflows.machines.up import UpResult
from orchestrator.workflows.runs.attempts import AttemptLine, counted
from orchestrator.workflows.runs.overview import short
from orchestrator.workflows.runs.unfinished import FROZEN
from remote.contract.run_status import FINAL
from remote.contract.wording import count

_RUNS_MAX = 12  # below one machine
_RUN_STYLES = {
    "FAILED": "red",
    "LOST": "red",
    "INTERRUPTED": "yellow",
    "SUCCEEDED": "green",
    "RUNNING": "cyan",
}


def ready(screen: Screen, result: UpResult) -> None:
    """What `up` made, or would make."""
    if result.machine is None:
        _would(screen, result)
        return
    machine = result.machine
    how = f"ready after {duration(result.seconds)}" if result.made else "was there and is ready"
    left = (machine.ends - machine.created).total_seconds() if result.made else None
    screen.line(
        labelled(
            "ready",
            f"{machine.name} on {machine.place} {how} · {about(machine.price_per_hour)}"
            + (" an hour (estimate)" if machine.price_per_hour else "")
            + f" · ends at {clock(machine.ends)}"
            + (f", in {duration(left)}" if left is not None else ""),
        ),
        style="green",
    )
    if not result.uploaded:  # else what was uploaded is told below, and ends with what to do next
        screen.next("tlvm upload DIR, then tlvm run fixed-extractor     to end it: tlvm down")


def _would(screen: Screen, result: UpResult) -> None:
    """What a dry run found: places in their order, the price, the end, and the most that it can cost."""
    spec, first = result.spec, result.offers[0] if result.offers else None
    screen.line(labelled("would ask", "; then ".join(_places(result.offers)) or "nowhere"))
    parts = [spec.name, first.machine_type if first else "", f"store {spec.store.url}"]
    screen.line(labelled("machine", ", ".join(part for part in parts if part)))
    if result.disk:
        disk = f"{result.disk.size_gb} GB {result.disk.kind}, {about(result.disk.per_month)} a month"
        screen.line(labelled("disk", f"{disk}, also while the machine is stopped; deleted with it"))
    if result.ssh_sources:
        screen.line(labelled("ssh", _reachable(result.ssh_sources)))
    if first is None or not result.most:
        screen.line(labelled("ends", f"{duration(spec.max_hours * 3600)} after its start; free"))
    else:
        hours = spec.hours(first.price_per_hour)
        idle = f", or {spec.idle_minutes:g} min idle" if spec.idle_minutes else ""
        by = ", which the budget pays for" if hours < spec.max_hours else ""
        screen.line(
            labelled(
                "price",
                f"about {price(first.price_per_hour)} an hour with its disk, an estimate from {result.prices}",
            )
        )
        screen.line(
            labelled(
                "ends",
                f"{duration(hours * 3600)} after its start{by}, deleted by the cloud itself{idle}; "
                f"at most about {price(result.most)}",
            )
        )
    screen.next(
        "the same without --dry-run; nothing has been created"
        + ("     the exact request: --dry-run --json" if result.request else "")
    )


def _reachable(sources: SshSources) -> str:
    """Who may come in, and who says so."""
    if sources.said_by == "gce.iap":
        return "only through Google's proxy, as gce.iap says: the machine has no address of its own"
    looked_up = "; gce.ssh_source_ranges names others" if "://" in sources.said_by else ""
    return f"only from {', '.join(sources.ranges)}, as {sources.said_by} says{looked_up}"


def _places(offers: list[Offer]) -> list[str]:
    """["nvidia-l4 in us-central1-a, us-central1-b", ...]: places of one accelerator together, in their order."""
    groups: dict[str, list[str]] = {}
    for offer in offers:
        groups.setdefault(offer.accelerator, []).append(f"{offer.place} ({price(offer.price_per_hour)})")
    return [
        ", ".join(places) if accelerator == "none" else f"{accelerator} in {', '.join(places)}"
        for accelerator, places in groups.items()
    ]


def overview(screen: Screen, result: StatusResult) -> None:
    """Machines with their runs below them, then what has no machine."""
    for problem in result.problems:
        screen.progress.warn(problem)
    if result.refreshed is not None:
        _refreshed(screen, result.refreshed)
    for machine in result.machines:
        _machine(screen, result, machine)
    if not result.machines:
        screen.line(f"No machine on the provider {result.provider}; nothing runs.")
    if result.other_runs:
        screen.line("runs without a machine", style="bold")
        _runs(screen, result.other_runs)
    if result.elsewhere:
        screen.line(
            labelled("asked", f"elsewhere, too: {', '.join(result.elsewhere)} (tlvm status --provider NAME)")
        )
    screen.line(labelled("store", result.store))
    if result.left_over is not None:
        costing(screen, result.left_over, result.prices)
    mine = [machine for machine in result.machines if machine.mine]
    order = ("RUNNING", "STARTING", "QUEUED")
    busy = [run for machine in mine for run in machine.runs if run.state in order]
    busy.sort(key=lambda run: (order.index(run.state), run.in_line))
    waiting = [
        run for runs in (*(line.runs for line in mine), result.other_runs) for run in runs if run.goes_on_with
    ]
    if any(machine.orphan for machine in mine):
        screen.next("tlvm down ends a machine; tlvm gc ends what is past its time")
    elif busy:
        known = [run.run_id for machine in result.machines for run in machine.runs]
        name = short(busy[0].run_id, known)
        screen.next(
            f"tlvm cancel {name}     if that does not end it: tlvm down --force"
            if busy[0].doubt == FROZEN
            else f"tlvm attach {name}"
        )
    elif waiting:
        screen.next(waiting[0].goes_on_with)
    elif mine and all(line.machine.state is MachineState.STOPPED for line in mine):
        screen.next("tlvm start boots it; tlvm down deletes it, disk and all")
    elif mine:
        screen.next("tlvm run SCENARIO     to end the machine: tlvm down")
    else:
        screen.next("tlvm up")


def _refreshed(screen: Screen, found: Refreshed) -> None:
    parts = [
        f"{', '.join(found.machines)} let this computer in" if found.machines else "",
        f"{count(found.runs, 'run')} found again" if found.runs else "",
        f"{found.pulled} of them lie here" if found.pulled else "",
    ]
    screen.line(labelled("refresh", "; ".join(part for part in parts if part) or "all was known"))


def costing(screen: Screen, left: LeftOver, prices: str = "") -> None:
    """What costs without a machine, a line each; the bucket last."""
    for thing in left.things:
        gb = f"{thing.size_gb} GB, " if thing.size_gb else ""
        screen.line(
            labelled(
                "left",
                f"{thing.kind} {thing.name}, {gb}{thing.place}, {about(thing.per_month)} a month → tlvm gc",
            ),
            style="yellow",
        )
    if left.stored_bytes:
        screen.line(
            labelled("bucket", f"{size(left.stored_bytes)}, {about(left.stored_per_month)} a month, stays")
        )
    if prices:
        screen.line(labelled("prices", f"estimates from {prices}"), style="dim")


def left(screen: Screen, result: SshResult) -> None:
    """The shell or the command has said everything itself."""


def authorized(screen: Screen, result: AuthorizeResult) -> None:
    who = "this computer" if result.this_computer else "that computer"
    screen.line(
        labelled("key", f"{result.machine} lets {who} in until {clock(result.until)}, with a key of its own")
    )
    screen.next("tlvm attach" if result.this_computer else "there: ssh with that key")


def gone(screen: Screen, result: DownResult) -> None:
    if not result.was_there:
        screen.line(f"There is no machine {result.machine}: nothing to delete.")
        if result.others:
            screen.line(labelled("still there", ", ".join(result.others)), style="yellow")
            screen.next(f"tlvm down --machine {result.others[0]}")
        else:
            screen.next("tlvm up makes one")
        return
    if not result.deleted:
        screen.line(f"Nothing was deleted: {result.machine} is still there.")
        screen.next("tlvm down")
        return
    verified = f"{count(len(result.runs), 'run')} of this machine verified in the store, file by file"
    screen.line(labelled("results", verified if result.runs else "no run of this machine has one"))
    for run_id in result.never_started:
        screen.line(labelled("taken back", f"{run_id} never started"), style="yellow")
    for run_id, why in result.abandoned.items():
        screen.line(labelled("lost", f"{run_id}: {why} (--force)"), style="red")
    for run_id, why in result.not_pulled.items():
        screen.line(labelled("not here", f"{run_id}: {why}"), style="yellow")
    screen.line(
        labelled("delete", f"{result.machine} is gone, confirmed twice, after {duration(result.seconds)}"),
        style="green",
    )
    screen.line(labelled("cost", f"{price(result.cost)} for {duration(result.hours * 3600)} (estimate)"))
    if result.left_over is not None:
        for problem in result.left_over.problems:
            screen.progress.warn(problem)
        costing(screen, result.left_over)
    if result.not_pulled:
        screen.next("; ".join(f"tlvm pull {short(run_id, result.runs)}" for run_id in result.not_pulled))
    else:
        results = "tlvm runs shows the results; " if result.runs else ""
        screen.next(f"{results}tlvm up makes a machine again")


def _machine(screen: Screen, result: StatusResult, line: MachineLine) -> None:
    machine = line.machine
    age = duration((result.now - machine.created).total_seconds())
    gpu = f", {machine.accelerator_count} × {machine.accelerator}" if machine.accelerator_count else ""
    spot = " spot" if machine.settings.get("spot") == "True" else ""
    cost = "free" if not machine.price_per_hour else f"{about(line.cost)} so far"
    screen.line(
        f"{machine.name}  {machine.place}{gpu}{spot}, {machine.state.value}, made {age} ago, {cost}",
        style="bold" if line.mine else "dim",
    )
    if not line.mine:
        screen.line(f"  of {machine.owner}, not touched by your commands", style="dim")
    left = (machine.ends - result.now).total_seconds()
    ends = f"ends {clock(machine.ends, result.now)}, in {duration(left)}" if left > 0 else "past its end"
    screen.line(f"  {ends}")
    if soft := _soft_clock(result, line):
        screen.line(f"  {soft}")
    if machine.state is MachineState.STOPPED and line.disk_per_month:
        screen.line(
            f"  stopped; its disk costs {about(line.disk_per_month)} a month → tlvm start, or tlvm down",
            style="yellow",
        )
    if line.orphan:
        what = "tlvm gc deletes it" if left <= 0 else "tlvm up looks closer, tlvm down ends it"
        screen.line(f"  orphan: {line.orphan} → {what}", style="red")
    _runs(screen, line.runs)


def _soft_clock(result: StatusResult, line: MachineLine) -> str:
    if not line.has_soft_clock or line.machine.state is not MachineState.RUNNING:
        return ""
    at_work = any(run.state not in FINAL and not run.doubt for run in line.runs)
    if at_work or (line.soft_end is None and any(not run.published for run in line.runs)):
        return "idle clock: off while it is at work"  # whatever its guard has said before
    if line.soft_end is None:
        return "idle clock: its guard, which looks every 10 s, has not said yet when it ends the machine"
    left = (line.soft_end - result.now).total_seconds()
    return f"idle: ends {clock(line.soft_end, result.now)}, in {duration(max(left, 0))} (tlvm extend HOURS moves that)"


def _said(run: RunLine) -> str:
    if run.doubt:
        return last_word(run.doubt, run.updated)
    if run.in_line:
        place = "next in line" if run.in_line == 1 else f"place {run.in_line} in line"
        return f"{place}, waits for …{run.waits_for[-4:]}" if run.waits_for else place
    return more_than(run.state, run.message) or (
        f"step {run.step} of 8" if run.step and run.state == "RUNNING" else ""
    )


def _machines(attempts: Sequence[AttemptLine], cost: float) -> str:
    """What a run has cost on how many machines, where there is anything to say."""
    return ", ".join(part for part in (counted(attempts), about(cost) if cost else "") if part)


def _runs(screen: Screen, runs: list[RunLine]) -> None:
    shown = [*runs[:_RUNS_MAX], *(run for run in runs[_RUNS_MAX:] if run.state not in FINAL)]
    rows = []
    for run in shown:
        updated = moment(run.updated)
        rows.append(
            (
                run.state.lower(),
                run.run_id,
                f"{run.model} on {run.dataset}",
                "result in the store" if run.published and run.state == "SUCCEEDED" else "",
                _machines(run.attempts, run.cost),
                clock(updated) if updated else "",
                _said(run),  # last: it may be long, and nothing is to stand behind it
            )
        )
    for lines, run in zip(folded(rows, screen.width, indent="  "), shown, strict=True):
        screen.lines(lines, style=_RUN_STYLES.get(run.state, ""))
        if run.goes_on_with:
            screen.line(f"    goes on with: {run.goes_on_with}", style="yellow")
    if len(runs) > len(shown):
        screen.line(f"  ... and {len(runs) - len(shown)} more that have ended (tlvm runs)")
