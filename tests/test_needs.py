"""A skip never hides in CI."""

from __future__ import annotations

import pytest

from tests.needs import lacks, need


def test_what_is_missing_is_skipped_and_in_ci_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "false"):
        monkeypatch.setenv("CI", value)
        with pytest.raises(pytest.skip.Exception, match="no gcloud"):
            lacks("no gcloud")
    for value in ("1", "true"):
        monkeypatch.setenv("CI", value)
        with pytest.raises(pytest.fail.Exception, match="in CI no test may be skipped: no gcloud"):
            lacks("no gcloud")


def test_a_name_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(KeyError, match="gclud"):
        need("gclud")
