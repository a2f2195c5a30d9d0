"""stop, start, extend."""

from __future__ import annotations

from orchestrator.render.console import Screen
from orchestrator.render.progress import labelled
from orchestrator.render.text import about, clock, duration
from orchestrator.workflows.machines.power import ExtendResult, StartResult, StopResult


def stopped(screen: Screen, result: StopResult) -> None:
    name = result.machine.name
    if not result.stopped:
        screen.line(f"Nothing was stopped: {name} goes on.")
        screen.next("tlvm stop")
        return
    screen.line(
        labelled("stopped", f"{name} {'was stopped already' if result.was_stopped else 'has stopped'}")
    )
    if result.disk_per_month:
        screen.line(
            labelled("costs", f"its disk still does: {about(result.disk_per_month)} a month (estimate)"),
            style="yellow",
        )
    screen.line(labelled("ends", f"{clock(result.machine.ends)}; after that tlvm gc deletes it"))
    for run_id in result.interrupted:
        goes_on = "goes on after tlvm start" if result.resumes else "was interrupted"
        screen.line(labelled("run", f"{run_id} {goes_on}"), style="yellow")
    screen.next("tlvm start boots it; tlvm down deletes it, disk and all")


def started(screen: Screen, result: StartResult) -> None:
    machine = result.machine
    how = "runs already" if result.was_running else f"is ready after {duration(result.seconds)}"
    per_hour = f" · {about(machine.price_per_hour)} an hour (estimate)" if machine.price_per_hour else ""
    screen.line(
        labelled(
            "ready",
            f"{machine.name} on {machine.place} {how}{per_hour} · ends at {clock(machine.ends)}, "
            f"in {duration(result.hours_left * 3600)}",
        ),
        style="green",
    )
    end = "to stop paying: tlvm down" if machine.price_per_hour else "to end it: tlvm down"
    screen.next(f"tlvm status shows its runs     {end}")


def extended(screen: Screen, result: ExtendResult) -> None:
    machine = result.machine
    screen.line(labelled("kept", f"{machine.name} until {clock(result.until)}, even when it is idle"))
    screen.line(labelled("ends", f"at {clock(machine.ends)} whatever happens: the cloud itself deletes it"))
    if result.capped:
        asked = f"you asked for {clock(result.asked_for)}; the hard end can't be moved while it runs"
        screen.line(labelled("but", asked), style="yellow")
        screen.next("for more: tlvm down, then tlvm up --max-hours H; the bucket keeps all")
    else:
        screen.next("tlvm down, as soon as you don't need it")
