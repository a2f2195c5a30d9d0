"""Where the provider `gce` makes machines, of which kind, and from which image."""

from __future__ import annotations

import pytest

from orchestrator.errors import (
    ConfigError,
)
from orchestrator.providers.gce import images
from tests.fakes.compute_server import ComputeServer
from tests.orchestrator.gce_cloud import gce, wanted


def test_places_come_in_the_users_order(server: ComputeServer) -> None:
    held = gce(server, zones="us-east4, us-central1-b")
    found = [(offer.place, offer.accelerator) for offer in held.offers(wanted(accelerator="l4,t4"))]
    assert found == [
        ("us-east4-a", "nvidia-l4"), ("us-east4-c", "nvidia-l4"), ("us-central1-b", "nvidia-l4"),
        ("us-central1-b", "nvidia-tesla-t4"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("accelerator", "count", "machine_type"),
    [
        ("t4", 1, "n1-standard-8"),
        ("l4", 1, "g2-standard-8"),
        ("a100", 1, "a2-highgpu-1g"),
        ("a100-80gb", 1, "a2-ultragpu-1g"),
        ("h100", 1, "a3-highgpu-1g"),
        ("nvidia-l4", 2, "g2-standard-24"),
        ("none", 0, "e2-standard-8"),
    ],
)
def test_the_machine_type_follows_from_the_accelerator(
    server: ComputeServer, accelerator: str, count: int, machine_type: str
) -> None:
    offers = gce(server, zones="us-central1-a").offers(
        wanted(accelerator=accelerator, accelerator_count=count)
    )
    assert [offer.machine_type for offer in offers] == [machine_type]
    assert offers[0].price_per_hour > 0


def test_what_no_place_has_is_said_with_what_they_have(server: ComputeServer) -> None:
    with pytest.raises(ConfigError, match="l4") as caught:
        gce(server, zones="us-central1-f").offers(wanted())
    assert "nvidia-tesla-t4" in caught.value.detail
    with pytest.raises(ConfigError, match="g2-standard-4"):
        gce(server, zones="us-central1-a").offers(wanted(machine_type="g2-standard-4", accelerator="t4"))


@pytest.mark.parametrize(
    ("setting", "said"), [("us-centrl1-a", "us-central1-a"), ("moon", "gcloud compute zones")]
)
def test_a_place_that_does_not_exist_is_named(server: ComputeServer, setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=setting) as caught:
        gce(server, zones=setting).offers(wanted())
    assert said in str(caught.value)


def test_an_accelerator_that_does_not_exist_is_named_with_the_nearest(server: ComputeServer) -> None:
    with pytest.raises(ConfigError, match="l5") as caught:
        gce(server).offers(wanted(accelerator="l5"))
    assert "'l4'" in str(caught.value)


def test_the_newest_family_that_is_alive_is_taken(server: ComputeServer) -> None:
    held = gce(server)
    there = images.alive(held.rest, held.settings.image_project)
    assert images.find(held.rest, held.settings).family == there[0]["family"]
    assert there[0]["family"].startswith("pytorch-2-9")
    assert all("deprecated" not in image for image in there)


def test_a_retired_family_is_told_with_those_that_live(server: ComputeServer) -> None:
    with pytest.raises(ConfigError, match="pytorch-latest-gpu") as caught:
        gce(server, image_family="pytorch-latest-gpu").offers(wanted())
    assert "pytorch-2-9" in caught.value.detail


@pytest.mark.parametrize("accelerator", ["p100", "v100"])
def test_a_generation_that_the_image_can_not_use_is_refused(server: ComputeServer, accelerator: str) -> None:
    with pytest.raises(ConfigError, match="can't compute"):
        gce(server, zones="us-central1").offers(wanted(accelerator=accelerator))
    assert server.count("instances.insert") == 0
