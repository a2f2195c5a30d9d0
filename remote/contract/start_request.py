"""What `start -` and a machine's own metadata say to begin a run, or to go on with it on another machine.

`python -m remote start -` reads a StartRequest from its standard input, or a bare RunSpec as older laptops send it. A
machine that nobody can reach over SSH finds a BootRun in its instance metadata (`tlvm-run`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from . import layout
from .document import ContractError, decode
from .run_spec import RunSpec, StoreRef

SCHEMA = 1
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_OURS = "TLVM_"


@dataclass(frozen=True)
class StartRequest:
    """`environment` may hold secrets: it stays in a file of mode 0600 on the machine, and is in no repr."""

    spec: RunSpec
    attempt: int | None = None  # at least; None: the next one that the machine knows
    machine: str = ""  # that the attempt is on; "": that of the spec
    seconds_left: float | None = None  # until the hard end of the machine; None: not known
    environment: dict[str, str] = field(default_factory=dict, repr=False)  # of the training process
    schema: int = field(default=SCHEMA)

    def __post_init__(self) -> None:
        if self.attempt is not None and self.attempt < 1:
            raise ContractError(f"attempt {self.attempt} is none: they count from 1")
        for name, value in self.environment.items():
            if not _VARIABLE.fullmatch(name) or name.startswith(_OURS) or "\0" in value:
                raise ContractError(f"environment: {name[:80]!r} can't be a variable of a run")


@dataclass(frozen=True)
class BootRun:
    """The run that a machine goes on with by itself, from the bucket, and the only code that it may run for it."""

    run_id: str
    bundle: str  # sha256
    store: StoreRef
    attempt: int
    machine: str
    schema: int = field(default=SCHEMA)

    def __post_init__(self) -> None:
        layout.checked_run_id(self.run_id)
        layout.sha256(self.bundle)


def read_start(text: bytes) -> StartRequest:
    """ContractError when it is neither."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"run spec: not JSON ({error})") from None
    if isinstance(data, dict) and "spec" in data:
        return decode(StartRequest, text, what="start request")
    return StartRequest(decode(RunSpec, text, what="run spec"))
