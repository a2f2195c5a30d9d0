"""Before a run begins on a machine that does not know it: does the store? Then it goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from remote.contract.document import ContractError
from remote.contract.layout import RunFolder
from remote.contract.run_spec import RunSpec
from remote.job.asked import Asked
from remote.job.pace import PAUSE_MAX_S
from remote.job.restore import restore
from remote.job.training_process import Limits
from remote.store import StoreError, open_store


class CannotTakeUp(Exception):
    """The store has, or may have, a part of this run, and does not give it; begun anew, the run would lose it."""


def take_up(
    spec: RunSpec, folder: RunFolder, asked: Asked, limits: Limits, check: Callable[[], None]
) -> list[str]:
    """What there is to say of it; nothing for a run that is known here, or nowhere.

    A first attempt does not depend on a store that refuses for good: it begins, and says so.

    check           called all the time; what it raises ends this
    CannotTakeUp
    """
    if folder.status.exists():
        return []
    deadline, pause_s = time.monotonic() + limits.publish_s, 1.0
    pool = ThreadPoolExecutor(1, thread_name_prefix="restore")
    try:
        while True:
            trying = pool.submit(lambda: restore(open_store(spec.store), spec.run_id, folder))
            while not wait([trying], limits.poll_s).done:
                check()
            try:
                return trying.result() or []
            except (ContractError, OSError) as error:
                raise CannotTakeUp(str(error)) from error
            except StoreError as error:
                if not error.retryable and (asked.attempt or 1) == 1:
                    return [f"Whether the store knows this run already can't be seen: {error}"]
                if time.monotonic() > deadline:
                    raise CannotTakeUp(str(error)) from error
            until = min(time.monotonic() + pause_s, deadline)
            while time.monotonic() < until:
                check()
                time.sleep(limits.poll_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)
    finally:
        pool.shutdown(wait=False)
