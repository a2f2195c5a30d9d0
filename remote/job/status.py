"""What a machine says of all its runs, as JSON for the laptop."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from remote.contract.document import ContractError
from remote.contract.layout import MachineHome, checked_run_id
from remote.job import line
from remote.job.follow import read_status


def status(home: MachineHome) -> dict[str, Any]:
    """{"schema": 1, "runs": [{"active": a supervisor or a training holds it, "status": RunStatus, "quiet_s": since it was
    written, by the clock of this machine}], "damaged": [...]}

    Oldest first. A run whose supervisor has not written its status yet is left out.
    """
    runs, damaged = [], []
    for folder in sorted(home.runs.glob("*"), key=lambda path: path.name.split("-")[-3:]):
        try:
            run_id = checked_run_id(folder.name)
            # Asked first: its last word is said while it is held.
            active = line.is_held(line.run_lock(home.locks, run_id))
            found = read_status(home.run(run_id))
        except ContractError as error:
            damaged.append(str(error))
            continue
        if found:
            quiet_s = max(0.0, time.time() - home.run(run_id).status.stat().st_mtime)
            runs.append({"active": active, "status": dataclasses.asdict(found), "quiet_s": quiet_s})
    return {"schema": 1, "runs": runs, "damaged": damaged}
