"""The training process of a run: `python -m remote train SPEC_PATH`, started by the supervisor.

Reads the spec, the manifest beside it, and what the supervisor fetched into the machine's home; writes the result
below the run's folder, events as they happen, and a plain log to stdout.

    0     done
    3     the data, the weights or the settings can't be used; the last `log` event says why
    12    told to stop (SIGTERM): what is needed to go on has been written
    13    the disk took no more: what was kept before is whole, and with room the run goes on from it
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

from remote.contract import document
from remote.contract.document import ContractError
from remote.contract.events import EventWriter
from remote.contract.full_disk import ForgivingLog, is_from_full_disk
from remote.contract.layout import RunFolder
from remote.contract.run_spec import RunSpec
from remote.errors import CannotRun, Stopped

DONE, UNUSABLE, STOPPED, NO_ROOM = 0, 3, 12, 13


def main(
    spec_path: Path,
    *,
    left_s: Callable[[], float] = lambda: math.inf,
    checkpoint_least_s: float = 60.0,
    checkpoint_times_cost: float = 50.0,
) -> int:
    """Train, and return the exit code. Between two checkpoints so much time passes, and so many times what one cost.

    left_s      of the run's max_hours, now
    """
    folder = RunFolder(spec_path.absolute().parent)
    events = EventWriter(folder.events)
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        spec = document.decode(RunSpec, spec_path.read_bytes(), what="run spec")
        _set_up_torch()
        from remote.scenarios import load
        from remote.task import open_task
        from remote.training.checkpoint import Rhythm

        rhythm = Rhythm(checkpoint_least_s, checkpoint_times_cost)
        log = redirect_stdout(ForgivingLog(sys.stdout))
        with log, open_task(spec, folder, events, stop.is_set, rhythm, left_s) as task:
            if spec.job == "evaluate":
                from remote.reevaluation import run

                run(task)
            else:
                load(spec.scenario)(task)
    except (CannotRun, ContractError) as error:
        return _end(events, UNUSABLE, "error", str(error))
    except Stopped as stopped:
        return _end(events, STOPPED, "warning", f"Stopped {stopped}, as it was told to")
    except Exception as error:
        if not is_from_full_disk(error):
            raise
        return _end(events, NO_ROOM, "warning", f"The disk of the machine takes no more ({error})")
    finally:
        signal.signal(signal.SIGTERM, before)
        events.close()
    return DONE


def _set_up_torch() -> None:
    """The same bits every time, on the same hardware; and threads that wait without burning the processor.

    The variables are read when torch is loaded, which is why it is imported here and not above. Where processes or
    our own decoding compete for the cores, threads that spin at each barrier made small networks ten times slower.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    # Some operations have no such way on GPUs, hence "warn". Not use_deterministic_algorithms: it loads torch's
    # compiler, which takes 1.5 s.
    torch.set_deterministic_debug_mode("warn")
    torch._C._set_deterministic_fill_uninitialized_memory(False)  # for finding bugs; a pass over all memory
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = (
        False  # float32 is float32: features are those that a processor computes
    )


def _end(events: EventWriter, code: int, level: str, text: str) -> int:
    print(text, file=ForgivingLog(sys.stdout), flush=True)
    events.log(text, level=level)
    return code
