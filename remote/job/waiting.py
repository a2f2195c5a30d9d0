"""A run waits for its turn: its status tells its place in the line, and for whom it waits."""

from __future__ import annotations

import time
from collections.abc import Callable

from remote.contract.document import ContractError
from remote.contract.run_spec import RunSpec
from remote.contract.wording import count
from remote.job import line
from remote.job.record import Record
from remote.job.training_process import Limits


def wait_in_line(
    ticket: line.Ticket, spec: RunSpec, record: Record, limits: Limits, check: Callable[[], None]
) -> line.Places:
    """The accelerators that it needs; on a machine without any, the one place that there is.

    check           called all the time; what it raises gives the place up
    ContractError   when the machine will never have as many
    """
    there = line.accelerators()
    try:
        if spec.accelerators > there:
            raise ContractError(
                f"The run asks for {count(spec.accelerators, 'accelerator')}, this machine has {there}"
            )
        told: tuple[int, str] | None = None
        while (places := ticket.try_take(max(1, spec.accelerators), max(1, there))) is None:
            before = ticket.ahead(max(1, there))
            if before != told:
                _tell(record, *before)
                told = before
            check()
            time.sleep(limits.poll_s)
    except BaseException:
        ticket.leave()
        raise
    return places


def _tell(record: Record, count: int, waits_for: str) -> None:
    runs = "run" if count == 1 else "runs"
    text = f"waits for {count} other {runs} before it" if count else "next in line"
    record.save(place=count + 1, waits_for=waits_for)
    record.state("QUEUED", f"{text}, after {waits_for}" if waits_for else text)
