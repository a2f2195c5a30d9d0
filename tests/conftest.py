"""What holds for every test: one that needs Docker is skipped where no engine runs, but never in CI."""

from __future__ import annotations

import os

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("docker") is None:
        return
    from tests.docker_engine import missing

    if reason := missing():
        if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
            pytest.fail(f"in CI no test that needs Docker may be skipped: {reason}", pytrace=False)
        pytest.skip(reason)
