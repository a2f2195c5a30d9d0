"""status, down and gc on Compute Engine's fake: what exists, what it costs, what is nobody's any more."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import requests

from orchestrator.config import Settings
from orchestrator.errors import ConfigError, ConflictError, NotFoundError
from orchestrator.render import gc as render_gc
from orchestrator.render import machines as render_machines
from orchestrator.render.console import Screen
from orchestrator.workflows.machines.down import down
from orchestrator.workflows.machines.gc import GcResult, gc
from orchestrator.workflows.machines.power import stop
from orchestrator.workflows.machines.status import status
from orchestrator.workflows.workspace import Workspace
from tests.fakes.compute_server import PROJECT, ComputeServer
from tests.fakes.gcs_server import GcsServer
from tests.orchestrator.gce_cloud import OFFER, PUBLIC_KEY, wanted
from tests.orchestrator.gce_workspace import waiting, workspace

NAME = "tlvm-ana-default"


@pytest.fixture
def made(server: ComputeServer, tmp_path: Path) -> Iterator[Workspace]:
    """Nothing is there yet; the bucket holds 3 MB."""
    with GcsServer() as bucket:
        bucket.create_bucket("trees-4711-tlvm")
        found = workspace(server, tmp_path)
        store = found.settings.store.model_copy(update={"endpoint": bucket.endpoint})
        opened = Workspace(found.settings.model_copy(update={"store": store}), found.progress)
        opened.provider = found.provider
        pack = tmp_path / "pack"
        pack.write_bytes(b"0" * 3_000_000)
        opened.store.upload(pack, "packs/0.tar")
        yield opened
        assert bucket.errors == []


def machine(made: Workspace, name: str = NAME, *, owner: str = "ana", hours: float = 4) -> None:
    spec = wanted(name=name, owner=owner, project="default", public_key=PUBLIC_KEY, max_hours=hours)
    made.provider.create(spec, OFFER)


def labels(owner: str, expires: datetime, name: str = "tlvm-old") -> dict[str, str]:
    return {
        "tlvm-machine": name,
        "tlvm-owner": owner,
        "tlvm-project": "default",
        "tlvm-expires": str(int(expires.timestamp())),
    }


def disk(server: ComputeServer, name: str, marks: dict[str, str], zone: str = "us-east4-c") -> None:
    body = {"name": name, "sizeGb": "100", "type": f"zones/{zone}/diskTypes/pd-balanced", "labels": marks}
    put(server, f"zones/{zone}/disks", body)


def put(server: ComputeServer, path: str, body: Mapping[str, object]) -> None:
    answer = requests.post(f"{server.url}/compute/v1/projects/{PROJECT}/{path}", json=body, timeout=10)
    assert answer.status_code == 200, answer.text


def there(server: ComputeServer, kind: str) -> list[str]:
    return sorted(name for _, name in server.cloud.resources[kind])


def text(draw: object, result: object) -> str:
    out = io.StringIO()
    draw(Screen(out, io.StringIO()), result)  # type: ignore[operator]
    return out.getvalue()


# status


def test_machines_come_from_the_cloud_with_both_clocks_and_their_price(
    server: ComputeServer, made: Workspace
) -> None:
    machine(made)
    machine(made, "tlvm-ben", owner="ben")
    server.clock.advance(41 * 60)
    now = server.clock.now()
    (id,) = [found["id"] for found in server.cloud.resources["instances"].values() if found["name"] == NAME]
    soft = now + timedelta(minutes=12)
    server.cloud.guests[id].attributes["tlvm/soft-end"] = str(int(soft.timestamp()))
    result = status(made, now=now)
    mine, theirs = result.machines
    assert (mine.machine.name, mine.mine, theirs.mine) == (NAME, True, False)
    assert mine.soft_end == soft.replace(microsecond=0) and mine.has_soft_clock
    assert mine.cost == pytest.approx(41 / 60 * OFFER.price_per_hour, rel=0.01)
    assert result.prices == "list prices of 2026-11-15"
    assert result.left_over is not None and result.left_over.things == []
    assert result.left_over.stored_bytes is None  # asked for only when nothing of mine is there
    shown = text(render_machines.overview, result)
    assert "us-central1-a, 1 × nvidia-l4, running, made 41 min ago" in shown
    assert "idle: ends" in shown and "of ben" in shown and "estimates from list prices" in shown


def test_a_machine_that_does_not_answer_or_is_over_is_an_orphan(
    server: ComputeServer, made: Workspace
) -> None:
    machine(made)
    assert status(made, now=server.clock.now()).machines[0].orphan == ""  # it may still be booting
    server.clock.advance(3600)
    assert status(made, now=server.clock.now()).machines[0].orphan == "it does not answer"
    stop(made, clock=waiting(server))
    stopped = status(made, now=server.clock.now()).machines[0]
    assert stopped.orphan == "" and stopped.disk_per_month == pytest.approx(20)
    server.clock.advance(4 * 3600)
    result = status(made, now=server.clock.now())
    assert result.machines[0].orphan == "its time is over"
    assert "tlvm gc deletes it" in text(render_machines.overview, result)


def test_what_still_costs_without_a_machine_is_shown_with_its_price(
    server: ComputeServer, made: Workspace
) -> None:
    now = server.clock.now()
    disk(server, "tlvm-old", labels("ana", now))
    disk(server, "tlvm-ben", labels("ben", now))
    disk(server, "unlabelled", {})
    put(server, "regions/us-east4/addresses", {"name": "tlvm-old", "labels": labels("ana", now)})
    result = status(made, now=now)
    assert result.left_over is not None
    assert [(thing.kind, thing.name, thing.per_month) for thing in result.left_over.things] == [
        ("disk", "tlvm-old", 10.0),
        ("address", "tlvm-old", pytest.approx(7.3)),
    ]
    assert result.left_over.stored_bytes == 3_000_000
    assert "disk tlvm-old, 100 GB, us-east4-c, about $10.00" in text(render_machines.overview, result)


def test_a_zone_that_can_not_be_asked_for_disks_hides_no_machine(
    server: ComputeServer, made: Workspace
) -> None:
    machine(made)
    server.faults.add("403 permission", "disks.aggregatedList")
    result = status(made, now=server.clock.now())
    assert [line.machine.name for line in result.machines] == [NAME]
    assert any("left over is not known" in problem for problem in result.problems)


def test_down_says_what_still_costs(server: ComputeServer, made: Workspace) -> None:
    machine(made)
    disk(server, "tlvm-old", labels("ana", server.clock.now()))
    result = down(made, clock=waiting(server))
    assert result.left_over is not None
    assert [thing.name for thing in result.left_over.things] == ["tlvm-old"]
    assert result.left_over.stored_bytes == 3_000_000
    shown = text(render_machines.gone, result)
    assert "bucket" in shown and "disk tlvm-old" in shown


# gc


def found(result: GcResult) -> dict[str, tuple[str, str, bool]]:
    return {f"{item.kind} {item.name}": (item.fate, item.why, item.deleted) for item in result.items}


@pytest.fixture
def much(server: ComputeServer, made: Workspace) -> Workspace:
    """Two hours ago: one of each kind that has expired since, one that has not, of two owners; a machine that runs."""
    now = server.clock.now()
    machine(made, "tlvm-mine-over", hours=1)
    machine(made, "tlvm-ben-over", owner="ben", hours=1)
    for name in ("tlvm-mine-over", "tlvm-ben-over"):
        made.provider.stop(name)
    machine(made, NAME, hours=10)
    soon, later = now + timedelta(hours=1), now + timedelta(hours=10)
    disk(server, "disk-over", labels("ana", soon))
    disk(server, "disk-alive", labels("ana", later))
    disk(server, "disk-ben", labels("ben", soon))
    disk(server, "disk-nobody", {})
    disk(server, "disk-damaged", labels("ana", soon) | {"tlvm-expires": "soon"})
    put(server, "regions/us-east4/addresses", {"name": "address-over", "labels": labels("ana", soon)})
    put(
        server,
        "global/firewalls",
        {"name": "tlvm-foreign", "targetTags": ["web"], "allowed": [{"IPProtocol": "tcp"}]},
    )
    server.clock.advance(2 * 3600)
    return made


def test_gc_deletes_what_is_mine_and_expired_and_nothing_else(server: ComputeServer, much: Workspace) -> None:
    disks, rules = there(server, "disks"), there(server, "firewalls")
    result = gc(much, now=server.clock.now(), clock=waiting(server))
    assert [name for name, (fate, _, _) in found(result).items() if fate == "expired"] == [
        "machine tlvm-mine-over",
        "address address-over",
        "disk disk-over",
    ]
    assert all(item.deleted == (item.fate == "expired") for item in result.items)
    assert result.exit_code == 0
    assert there(server, "instances") == [NAME, "tlvm-ben-over"]
    assert there(server, "disks") == [name for name in disks if name not in ("tlvm-mine-over", "disk-over")]
    assert there(server, "addresses") == []
    assert there(server, "firewalls") == rules
    fates = {name: fate for name, (fate, _, _) in found(result).items()}
    assert fates["disk disk-alive"] == fates["disk disk-damaged"] == "listed"
    assert fates["machine tlvm-ben-over"] == fates["disk disk-ben"] == "not touched"
    assert "disk disk-nobody" not in fates
    shown = text(render_gc.collected, result)
    assert "3 things of 3 deleted" in shown and "theirs" in shown
    assert not [item for item in gc(much, now=server.clock.now()).items if item.deleted]


def test_a_dry_run_and_a_no_delete_nothing(server: ComputeServer, much: Workspace) -> None:
    for result in (
        gc(much, mine=True, dry_run=True, now=server.clock.now()),
        gc(much, mine=True, confirm=lambda _: False, now=server.clock.now()),
    ):
        assert result.dry_run and result.exit_code == 0
        assert "would be deleted; nothing was" in text(render_gc.collected, result)
    assert not [request for request in server.requests if request.method == "DELETE"]


def test_mine_takes_everything_of_mine_and_nothing_of_others(server: ComputeServer, much: Workspace) -> None:
    result = gc(much, mine=True, now=server.clock.now(), clock=waiting(server))
    assert result.exit_code == 0
    assert there(server, "instances") == ["tlvm-ben-over"]
    assert there(server, "disks") == ["disk-ben", "disk-nobody", "tlvm-ben-over"]
    rules = there(server, "firewalls")
    assert "tlvm-ssh-ana" not in rules and {"tlvm-deny-ssh", "tlvm-ssh-ben", "tlvm-foreign"} <= set(rules)


def test_what_is_named_is_deleted_and_names_are_checked_first(server: ComputeServer, much: Workspace) -> None:
    now = server.clock.now()
    with pytest.raises(ConflictError, match="belongs to ben"):
        gc(much, ["disk-alive", "disk-ben"], now=now)
    with pytest.raises(NotFoundError) as caught:
        gc(much, ["disk-aliv"], now=now)
    assert "disk-alive" in caught.value.next
    with pytest.raises(ConflictError, match="in use"):
        gc(much, ["tlvm-deny-ssh"], now=now)
    with pytest.raises(ConfigError):
        gc(much, ["disk-alive"], mine=True)
    assert not [request for request in server.requests if request.method == "DELETE"]
    gc(much, ["disk-alive"], now=now, clock=waiting(server))
    assert "disk-alive" not in there(server, "disks") and "disk-damaged" in there(server, "disks")


def test_a_name_that_is_another_things_by_now_is_spared(server: ComputeServer, made: Workspace) -> None:
    """Between looking and deleting somebody made a new one."""
    now = server.clock.now()
    disk(server, "tlvm-old", labels("ana", now - timedelta(hours=1)))
    (old,) = server.cloud.resources["disks"].values()

    def exchanged(_: str) -> bool:
        server.cloud.remove("disks", old)
        disk(server, "tlvm-old", labels("ana", now + timedelta(hours=1)))
        return True

    result = gc(made, confirm=exchanged, now=now, clock=waiting(server))
    assert there(server, "disks") == ["tlvm-old"]
    assert result.exit_code == 3 and "by now" in result.items[0].why


def test_a_machine_that_was_made_anew_meanwhile_is_spared(server: ComputeServer, made: Workspace) -> None:
    machine(made, hours=1)
    made.provider.stop(NAME)
    server.clock.advance(2 * 3600)

    def exchanged(_: str) -> bool:
        made.provider.delete(NAME)
        machine(made)
        return True

    result = gc(made, confirm=exchanged, now=server.clock.now(), clock=waiting(server))
    assert there(server, "instances") == [NAME]
    assert result.exit_code == 3


def test_one_that_can_not_be_deleted_does_not_keep_the_others(server: ComputeServer, much: Workspace) -> None:
    server.faults.add("403 permission", "disks.delete")
    result = gc(much, now=server.clock.now(), clock=waiting(server))
    kept = [item for item in result.items if item.fate == "expired" and not item.deleted]
    assert [item.name for item in kept] == ["disk-over"] and "you may not" in kept[0].why
    assert result.exit_code == 3


# A store that is gone


def test_a_bucket_that_is_gone_hides_no_machine_and_keeps_none(
    server: ComputeServer, made: Workspace
) -> None:
    machine(made)
    store = made.settings.store.model_copy(update={"url": "gs://gone"})
    without = Workspace(made.settings.model_copy(update={"store": store}), made.progress)
    without.provider = made.provider
    result = status(without, now=server.clock.now())
    assert [line.machine.name for line in result.machines] == [NAME]
    assert any("Runs are not known" in problem for problem in result.problems)
    with pytest.raises(NotFoundError):
        down(without, clock=waiting(server))
    assert there(server, "instances") == [NAME]
    assert down(without, force=True, clock=waiting(server)).deleted
    assert there(server, "instances") == there(server, "disks") == []


def test_on_this_computer_there_is_nothing_to_collect(tmp_path: Path) -> None:
    result = gc(Workspace(Settings(folder=tmp_path, data_dir=tmp_path / "data")))
    assert (result.items, result.exit_code) == ([], 0)
    assert "Nothing of tlvm" in text(render_gc.collected, result)
