"""Work that may take long, or hang, in a thread beside what has to go on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")


def beside(work: Callable[[], T], meanwhile: Callable[[], None], *, poll_s: float) -> T:
    """What `work` returns or raises. `meanwhile` is called all the time: what it raises leaves the work to itself."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="beside")
    try:
        working = pool.submit(work)
        while not wait([working], poll_s).done:
            meanwhile()
        return working.result()
    finally:
        pool.shutdown(wait=False)
