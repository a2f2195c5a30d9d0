"""Credentials of CI live for five minutes, a run longer: they are renewed before what comes after the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.token_service import TokenService
from tests.faults.fork_server import Forked, Job
from tests.faults.stopping_bucket import StoppingBucket
from tests.faults.test_kill_anywhere import Stage, Theatre
from tests.needs import need

_RUN = ("run", "fixed-extractor", "--weights", "none", "--ephemeral", "--seed", "60", "--json")


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    need("loopback machines")
    with Forked() as forked, StoppingBucket() as bucket:
        yield Theatre(tmp_path_factory.mktemp("credentials"), forked, bucket)


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenService]:
    with TokenService(tmp_path) as service:
        yield service


@pytest.fixture
def stage(theatre: Theatre, tokens: TokenService) -> Iterator[Stage]:
    """Everything that the laptop asks of Google Cloud needs a token that is not older than five minutes."""
    with theatre.stage() as stage:
        text = (stage.folder / "tlvm.toml").read_text()
        file = f'credentials_file = "{tokens.credentials_file()}"\n'
        text = text.replace("[gce]\n", f"[gce]\n{file}").replace("[store]\n", f"[store]\n{file}")
        (stage.folder / "tlvm.toml").write_text(text.replace('name = "tlvm-ana-trees"\n', ""))
        stage.cloud.is_current = stage.bucket.is_current = tokens.is_current
        yield stage
        stage.bucket.is_current = lambda header: True


def at_work(stage: Stage, job: Job) -> None:
    logs = stage.machines.folder
    job.until(lambda: any("line 299" in log.read_text() for log in logs.glob("*/.tlvm/runs/*/log.txt")))


def let_it_end(stage: Stage) -> None:
    for home in stage.machines.folder.glob("*/.tlvm"):
        (home / "go").touch()


def test_tokens_that_expire_while_it_trains_are_renewed_before_down_and_pull(
    stage: Stage, tokens: TokenService
) -> None:
    job = stage.begin(*_RUN)
    at_work(stage, job)
    tokens.rotate()
    tokens.expire()
    let_it_end(stage)
    answer = job.answer()
    assert answer.exit_code == 0, answer.stderr
    assert answer.document["down"]["deleted"] and Path(answer.document["folder"]).is_dir()
    assert len(set(tokens.exchanged)) == 2 and tokens.refused == []


def test_a_credentials_file_that_was_replaced_meanwhile_is_read_again(
    stage: Stage, tokens: TokenService, tmp_path: Path
) -> None:
    """As a job does whose login was made anew: what the file of before names is gone."""
    job = stage.begin(*_RUN)
    at_work(stage, job)
    moved = tmp_path / "subject.jwt"
    new = tmp_path / "new.jwt"
    tokens.move_subject(new)
    moved.unlink()
    tokens.expire()
    let_it_end(stage)
    answer = job.answer()
    assert answer.exit_code == 0, answer.stderr
    assert stage.instances() == {}


def test_tokens_that_expire_during_down_and_pull_are_renewed_at_once(
    stage: Stage, tokens: TokenService
) -> None:
    """Each answer of the cloud to the laptop is the last one that its token gets on a connection."""
    job = stage.begin(*_RUN)
    at_work(stage, job)
    stage.cloud.is_current = stage.bucket.is_current = tokens.is_current_once
    let_it_end(stage)
    answer = job.answer()
    assert answer.exit_code == 0, answer.stderr
    assert len(tokens.exchanged) > 5


def test_a_login_that_is_over_for_good_leaves_the_machine_its_end_and_status_completes(
    stage: Stage, tokens: TokenService
) -> None:
    job = stage.begin(*_RUN)
    at_work(stage, job)
    tokens.refuses = True
    tokens.expire()
    let_it_end(stage)
    answer = job.answer(120)
    assert answer.exit_code == 5, answer.stderr
    assert len(stage.instances()) == 1
    tokens.refuses = False
    stage("status")
    assert stage.instances() == {}
    (folder,) = (stage.folder / "runs").glob("*")
    assert (folder / "run.json").is_file()
