"""The way to a machine that is cut, slow or frozen: the run does not notice, and its followers lose and repeat nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.faults.fork_server import Job
from tests.faults.machines import LocalMachine
from tests.faults.proxy import Proxy
from tests.faults.survival import MACHINE, World
from tests.remote.machine import eventually


@dataclass(frozen=True)
class CutOff:
    """One run with two followers, of whom each is cut off in its middle."""

    run_id: str
    for_a_while: Job
    for_ever: Job


@pytest.fixture(scope="module")
def cut_off(
    local: World, local_machine: LocalMachine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CutOff]:
    with Proxy(local_machine.port) as one, Proxy(local_machine.port) as other:
        elsewhere = local.on_another_computer(tmp_path_factory.mktemp("elsewhere"))
        with LocalMachine(elsewhere.data, MACHINE).behind(other):
            with local_machine.behind(one):
                with local_machine.holding(3, 5):
                    first = local.begin(*local.run("--json"))
                    run_id = local_machine.next_run()
                    second = elsewhere.begin("logs", "-f", run_id)
                    eventually(lambda: "epoch 3 of" in second.stdout, within_s=200)
                    one.be_silent()
                    other.be_silent()
                    local_machine.release(3)
                    local_machine.at_hold(5)
                    eventually(lambda: "connecting again" in first.stderr, within_s=200)
                one.flow()
                assert first.ended(200)
            yield CutOff(
                run_id, first, second
            )  # the second still looks for it, while the next tests are at work


def test_the_network_is_cut_for_a_while(cut_off: CutOff, local: World) -> None:
    answer = cut_off.for_a_while.answer()
    assert answer.exit_code == 0, answer.stderr
    assert "connecting again" in answer.stderr
    assert local.epochs_in(answer.stderr) == [*range(1, local.epochs + 1)], "a line came twice, or never"
    assert local.pulled(cut_off.run_id) == local.undisturbed


def test_the_machine_is_frozen_for_a_while(local: World, local_machine: LocalMachine) -> None:
    with local_machine.holding(3):
        follower = local.begin(*local.run("--json"))
        run_id = local_machine.next_run()
        local_machine.at_hold(3)
        with local_machine.frozen(run_id):
            eventually(lambda: "connecting again" in follower.stderr, within_s=200)
    answer = follower.answer(200)
    assert answer.exit_code == 0, answer.stderr
    assert "connecting again" in answer.stderr
    assert local.epochs_in(answer.stderr) == [*range(1, local.epochs + 1)], "a line came twice, or never"
    assert local.pulled(run_id) == local.undisturbed


def test_the_network_is_cut_for_ever(cut_off: CutOff) -> None:
    answer = cut_off.for_ever.answer(200)
    assert answer.exit_code == 8
    assert "can't be reached any more" in answer.stderr
    assert cut_off.run_id[-4:] in answer.stderr, "it is not said how to come back"
