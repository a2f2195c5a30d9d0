"""Records: private, replaced whole, and nothing that can't be rebuilt."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from orchestrator.errors import CloudError
from orchestrator.records import MachineRecord, Records, RunRecord, SeenRecord

RUN = "fixed-extractor-20260807-142530-k3qz"


def machine(**more: object) -> MachineRecord:
    return MachineRecord("m", "local", asked="2026-08-07T14:25:30+00:00", **more)  # type: ignore[arg-type]


def test_a_machine_is_remembered_and_forgotten_with_its_key(tmp_path: Path) -> None:
    records = Records(tmp_path / ".tlvm")
    assert records.machine("local", "m") is None
    records.save_machine(machine(id="1", host_keys=["ssh-ed25519 AAAA"]))
    assert records.machine("local", "m") == machine(id="1", host_keys=["ssh-ed25519 AAAA"])
    assert [record.name for record in records.machines()] == ["m"]
    key = records.key_file("local", "m")
    key.write_text("private")
    key.with_name("m.pub").write_text("public")
    for _ in range(2):
        records.forget_machine("local", "m")
    assert records.machine("local", "m") is None
    assert not list(key.parent.iterdir())


def test_the_folder_is_private_and_ignored_by_git(tmp_path: Path) -> None:
    records = Records(tmp_path / ".tlvm")
    records.save_machine(machine())
    assert stat.S_IMODE((tmp_path / ".tlvm").stat().st_mode) == 0o700
    assert (tmp_path / ".tlvm" / ".gitignore").read_text() == "*\n"


def test_runs_are_in_the_order_in_which_they_were_asked_for(tmp_path: Path) -> None:
    records = Records(tmp_path)
    for tail, asked in (("bbbb", "2"), ("aaaa", "3"), ("cccc", "1")):
        records.save_run(RunRecord(f"{RUN[:-4]}{tail}", "m", "local", asked))
    assert [record.run_id[-4:] for record in records.runs()] == ["cccc", "bbbb", "aaaa"]
    records.pulled(f"{RUN[:-4]}aaaa", tmp_path / "there")
    found = records.run(f"{RUN[:-4]}aaaa")
    assert found is not None and found.pulled_to == str(tmp_path / "there")


def test_what_was_last_seen_of_a_dataset_is_kept_for_each_folder_and_store(tmp_path: Path) -> None:
    records = Records(tmp_path / ".tlvm")
    folder = tmp_path / "photos"
    assert records.seen(folder, "/store", "trees") is None
    seen = SeenRecord(str(folder), "/store", "trees", "a" * 64)
    records.save_seen(seen)
    assert records.seen(folder, "/store", "trees") == seen
    assert records.seen(folder, "/other", "trees") is None


def test_a_broken_record_says_which_file_may_go(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.save_machine(machine())
    file = tmp_path / "machines" / "local" / "m.json"
    file.write_text("{")
    with pytest.raises(CloudError) as caught:
        records.machine("local", "m")
    assert str(file) in caught.value.next


def test_a_folder_that_is_a_file_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / ".tlvm").write_text("")
    with pytest.raises(CloudError, match="records"):
        Records(tmp_path / ".tlvm").runs()
