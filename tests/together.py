"""Which tests stay together in one process where several run, in their order: each file, and the groups here.

Who lists containers sees those of all; and some files share a machine that takes a while to make. What takes long
begins first, so that the processes end at about the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

_GROUPS = {
    "docker": (
        "faults/test_survives_containers.py",
        "e2e/test_docker_folder.py",
        "e2e/test_main_job.py",
        "e2e/test_rehearse.py",
        "conformance/test_providers.py",
        "orchestrator/test_docker_*.py",
        "orchestrator/test_fake_compute_machines.py",
    ),
    "local": ("faults/test_survives_*.py",),
}
_FOLDERS = ("faults", "e2e", "remote", "conformance", "orchestrator")


def check(items: Sequence[pytest.Item]) -> None:
    """UsageError for one that needs Docker and is in no group: it would meet the containers of others."""
    for item in items:
        if item.get_closest_marker("docker") and group(item.nodeid) != "docker":
            raise pytest.UsageError(f"{item.nodeid} needs Docker; its file is not in {__name__}")


def turn(item: pytest.Item) -> tuple[int, int]:
    """To sort by."""
    path = PurePosixPath(item.nodeid.partition("::")[0])
    groups, folder = [*_GROUPS, str(path)], path.parent.name
    return groups.index(group(item.nodeid)), _FOLDERS.index(folder) if folder in _FOLDERS else len(_FOLDERS)


def group(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    for name, patterns in _GROUPS.items():
        if any(fnmatchcase(file, f"*/{pattern}") for pattern in patterns):
            return name
    return file


def scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Of xdist: hands a group to the next process that is free.

    What xdist has in public for groups, `--dist loadgroup` with its marks, puts each test into a group of its own: it
    writes the mark into `item._nodeid`, which pytest 9.2 does not read. Its own schedulers replace this method, too.
    """
    from xdist.scheduler import LoadScopeScheduling

    if not hasattr(LoadScopeScheduling, "_split_scope"):
        raise pytest.UsageError(
            f"This xdist has another way to group tests: {__name__}. PROCESSES=1 needs none."
        )
    config.option.loadscopereorder = False
    made = LoadScopeScheduling(config, log)
    made._split_scope = group
    return made
