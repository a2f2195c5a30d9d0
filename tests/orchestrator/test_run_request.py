"""What was asked of `tlvm run`, as data: what is a line, what is repeated, and the command that does it in earnest."""

from __future__ import annotations

from pathlib import Path

from orchestrator.workflows.runs.request import Request, in_earnest


def test_several_scenarios_or_all_are_a_line() -> None:
    assert not Request(["fixed-extractor"]).is_line
    assert not Request(spec="k3qz").is_line
    assert Request(["all"]).is_line
    assert Request(["fixed-extractor", "from-scratch"]).is_line


def test_what_is_said_beside_a_run_that_is_repeated_wins() -> None:
    assert Request(["from-scratch"]).repeat is None
    repeat = Request(spec="k3qz", model="resnet50", seed=0, machine="tlvm-a").repeat
    assert repeat and (repeat.run, sorted(repeat.instead)) == ("k3qz", ["model", "seed"])


def test_the_command_in_earnest_says_all_that_was_asked_but_the_rehearsal_and_values_of_variables() -> None:
    request = Request(
        ["fixed-extractor", "fine-tune-all"],
        rehearse=True,
        data=Path("my photos"),
        model="squeezenet1_1",
        weights="none",
        parameters={"folds": "3", "epochs": "2"},
        seed=0,
        max_hours=1.5,
        recover=False,
        ephemeral=True,
        machine="tlvm-a",
        provider="gce",
        env=["HF_HOME", "LAB_TOKEN=s3cret=="],
        env_files=[Path("secrets.env")],
    )
    words = (
        "tlvm run fixed-extractor fine-tune-all --data 'my photos' --model squeezenet1_1 --weights none --seed 0 "
        "--max-hours 1.5 --machine tlvm-a --provider gce --set folds=3 --set epochs=2 --env HF_HOME "
        "--env LAB_TOKEN=... --env-file secrets.env --no-recover --ephemeral"
    )
    assert in_earnest(request) == words
    assert (
        in_earnest(Request(spec="k3qz", rehearse=True, dataset="photos"))
        == "tlvm run --spec k3qz --dataset photos"
    )
