"""One file a scenario: which layers train, how, and with what rate."""

from __future__ import annotations

from collections.abc import Callable

from remote.task import Task


def load(name: str) -> Callable[[Task], None]:
    """The scenario's function, imported when it is asked for."""
    if name == "fixed-extractor":
        from .fixed_extractor import run

        return run
    if name == "initial-layers":
        from .initial_layers import run

        return run
    if name == "fine-tune-top":
        from .fine_tune_top import run

        return run
    if name == "fine-tune-all":
        from .fine_tune_all import run

        return run
    if name == "from-scratch":
        from .from_scratch import run

        return run
    raise LookupError(name)
