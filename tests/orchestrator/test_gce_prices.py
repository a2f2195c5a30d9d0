"""Prices: from the Cloud Billing Catalogue through the fake, kept for a week; else the dated table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.providers.gce import GceProvider
from orchestrator.providers.gce.catalogue import SOURCE, Kept, Prices, read, table
from orchestrator.providers.gce.prices import LIST, Rate
from orchestrator.providers.gce.rest import Rest
from orchestrator.render import machines as render_machines
from orchestrator.render import power as render_power
from orchestrator.workflows.machines.power import StartResult
from orchestrator.workflows.machines.up import UpResult
from tests.fakes.cloud_prices import skus
from tests.fakes.compute_cloud import Clock
from tests.fakes.compute_server import ComputeServer
from tests.orchestrator.gce_cloud import gce_settings, wanted
from tests.orchestrator.gce_project import text
from tests.orchestrator.scripted_provider import machine_of

DAY_S = 24 * 3600


@pytest.fixture
def server() -> Iterator[ComputeServer]:
    with ComputeServer(clock=Clock(rate=0), wait_s=0.05, page_size=40) as running:
        yield running
        assert running.errors == []


def prices(server: ComputeServer, folder: Path) -> Prices:
    """As another command would have them: nothing is remembered but the file."""
    return Prices(Rest(gce_settings(server)), folder / "cache" / "prices.json", server.clock.now)


def asked(server: ComputeServer) -> int:
    return server.count("cloudbilling.services.skus.list")


def test_the_catalogue_is_read_page_by_page_and_kept_for_a_week(
    server: ComputeServer, tmp_path: Path
) -> None:
    found = prices(server, tmp_path).today()
    pages = asked(server)
    assert pages > 1
    assert (found.source, found.listed) == (SOURCE, f"{server.clock.now():%Y-%m-%d}")
    here = found.of("us-central1")
    assert here.per_gpu["nvidia-l4"] == Rate(0.56, 0.223)
    core, memory = here.per_cpu["g2"]
    assert (core.demand, memory.demand) == (0.024988, 0.002927)
    assert core.spot == pytest.approx(0.009995, rel=0.01)
    assert memory.spot == pytest.approx(0.001171, rel=0.01)
    assert here.per_gpu["nvidia-h100-80gb"].demand == 9.8
    assert here.disk_gb_month["pd-balanced"] == 0.10 and here.address_per_hour == 0.005
    server.clock.advance(6 * DAY_S)
    assert prices(server, tmp_path).today() == prices(server, tmp_path).known() == found
    assert asked(server) == pages
    server.clock.advance(2 * DAY_S)
    assert prices(server, tmp_path).today().listed > found.listed
    assert asked(server) == 2 * pages


def test_other_ways_of_paying_are_not_the_price() -> None:
    """Calendar mode is listed as on demand, at half the price."""
    descriptions = [str(sku["description"]) for sku in skus()]
    assert any(text.startswith("DWS Calendar Mode Nvidia L4") for text in descriptions)
    found = read(skus())["us-central1"]
    assert found["gpu nvidia-l4"] == 0.56 and found["spot gpu nvidia-l4"] == 0.223
    assert found["gpu nvidia-tesla-a100"] == 2.934 and found["gpu nvidia-a100-80gb"] == 3.93
    assert found["core n1"] == 0.031611  # not the custom one


def test_half_a_price_is_not_believed() -> None:
    kept = Kept(
        "2026-11-22", "2026-11-22", {"us-central1": {"gpu nvidia-a100-80gb": 1.85, "gpu nvidia-l4": 0.70}}
    )
    found = table(kept).of("us-central1")
    assert found.per_gpu["nvidia-a100-80gb"].demand == LIST.per_gpu["nvidia-a100-80gb"].demand
    assert found.per_gpu["nvidia-l4"].demand == 0.70
    assert table(kept).of("mars-north1").per_gpu == LIST.per_gpu


def test_without_the_catalogue_the_dated_table_counts_and_it_is_left_in_peace_for_a_day(
    server: ComputeServer, tmp_path: Path
) -> None:
    server.project.enabled.discard("cloudbilling.googleapis.com")
    assert prices(server, tmp_path).today() == LIST
    tried = asked(server)
    assert prices(server, tmp_path).today() == LIST and asked(server) == tried
    server.project.enabled.add("cloudbilling.googleapis.com")
    server.clock.advance(2 * DAY_S)
    assert prices(server, tmp_path).today().source == SOURCE


def test_what_was_known_stays_while_the_catalogue_is_away(server: ComputeServer, tmp_path: Path) -> None:
    found = prices(server, tmp_path).today()
    server.project.enabled.discard("cloudbilling.googleapis.com")
    server.clock.advance(8 * DAY_S)
    assert prices(server, tmp_path).today() == found


@pytest.mark.parametrize("content", ["", "{", '{"schema": 1, "prices": 3}', "[]"])
def test_a_damaged_file_is_written_anew(server: ComputeServer, tmp_path: Path, content: str) -> None:
    file = tmp_path / "cache" / "prices.json"
    file.parent.mkdir()
    file.write_text(content)
    assert prices(server, tmp_path).known() == LIST
    assert prices(server, tmp_path).today().source == SOURCE
    assert prices(server, tmp_path).known().source == SOURCE


def test_what_a_person_waits_for_asks_nobody(server: ComputeServer, tmp_path: Path) -> None:
    assert prices(server, tmp_path).known() == LIST and asked(server) == 0


def test_offers_are_priced_with_what_the_catalogue_says(server: ComputeServer, tmp_path: Path) -> None:
    provider = GceProvider(gce_settings(server), now=server.clock.now, prices_file=tmp_path / "prices.json")
    offer = provider.offers(wanted())[0]
    disk_and_address = 200 * 0.10 / 730 + 0.005
    assert offer.price_per_hour == pytest.approx(
        0.56 + 8 * 0.024988 + 32 * 0.002927 + disk_and_address, abs=1e-4
    )
    assert provider.account().prices().startswith(SOURCE)


def test_a_price_of_a_machine_is_called_an_estimate_wherever_it_is_told() -> None:
    machine = machine_of("tlvm-ana-trees", price_per_hour=0.3)
    up = UpResult(machine, True, wanted(), seconds=13)
    start = StartResult(machine, was_running=False, hours_left=3, seconds=13)
    for shown in (text(render_machines.ready, up), text(render_power.started, start)):
        assert "about $0.30 an hour (estimate)" in shown
