"""The copy of the code that the tests of faults run, made once; and one user with a machine of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.machines import LocalMachine
from tests.faults.scaled import scaled
from tests.faults.survival import MACHINE, World, world


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long run of the soak comes first: whatever comes later gets the time that is left."""
    items.sort(key=lambda item: item.path.name != "test_soak.py")


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scaled(tmp_path_factory.mktemp("scaled"))


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Iterator[World]:
    """A user of the provider `local`, for all tests: each leaves the machine working."""
    with world(tmp_path_factory.mktemp("local"), code, "local", epochs=8) as user:
        yield user


@pytest.fixture(scope="session")
def local_machine(local: World) -> LocalMachine:
    return LocalMachine(local.data, MACHINE)
