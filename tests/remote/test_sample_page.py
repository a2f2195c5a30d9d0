"""The page of samples shows what the network was given, and is harmless whatever images and classes are called."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from remote import train
from remote.images.preprocessing import network_input, of_weights, with_image_size
from remote.results import sample_page
from remote.results.sample_page import Sample
from tests.remote import fixtures
from tests.remote.test_augmentation import picture
from tests.remote.test_training import image


class Elements(HTMLParser):
    """The tags of a page, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_are_shown_and_never_run() -> None:
    evil = '"><script>alert(1)</script>\u202e{title}&amp;\x07'
    one = dataclasses.replace(image(1), path=quote(f"train/x/{evil}.png"), class_name=evil)
    pixels = np.asarray(picture(32, 32))
    spec = with_image_size(of_weights("resnet18"), 32)
    elements = Elements(sample_page.page(evil, spec, evil, [Sample(one, pixels, pixels)]))
    names = [tag for tag, _ in elements.tags]
    assert "script" not in names
    assert names.count("img") == 2
    assert all(set(attributes) == {"src", "alt"} for tag, attributes in elements.tags if tag == "img")
    assert '"><script>alert(1)</script>\ufffd{title}&amp;\ufffd' in elements.text
    assert not re.search(r"(src|href)=.(?!data:)", sample_page.page("t", spec, "", []))


def test_pixels_are_those_that_the_network_was_given() -> None:
    spec = with_image_size(of_weights("resnet18"), 48)
    given = np.stack([np.asarray(picture(48, 48, seed)) for seed in range(3)])
    shown = sample_page.as_pixels(spec, network_input(spec, given, torch.device("cpu")))
    assert np.array_equal(np.stack(shown), given)
    elements = Elements(sample_page.page("t", spec, "", [Sample(image(1), given[0])]))
    (source,) = [attributes["src"] for tag, attributes in elements.tags if tag == "img"]
    assert source is not None
    decoded = Pillow.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert np.array_equal(np.asarray(decoded), given[0])


@pytest.mark.parametrize("scenario", ["from-scratch", "fixed-extractor"])
def test_every_run_leaves_one(tmp_path: Path, scenario: str) -> None:
    machine = fixtures.home(tmp_path / "home")
    for number in range(12):
        path = tmp_path / "images" / ("train", "val")[number >= 8] / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(40, 50, number).save(path)
    dataset = fixtures.pack_folder(machine, tmp_path / "images")
    parameters: dict[str, Any] = {
        "image_size": 32,
        **({"epochs": 1, "holdout": 0.3} if scenario == "from-scratch" else {}),
    }
    folder = fixtures.put_run(machine, dataset, scenario=scenario, model="squeezenet1_1", **parameters)
    assert train.main(folder.spec) == 0
    elements = Elements((folder.result / "sample.html").read_text(encoding="utf-8"))
    figures = [tag for tag, _ in elements.tags if tag == "figure"]
    pictures = [tag for tag, _ in elements.tags if tag == "img"]
    assert 4 <= len(figures) <= 8
    assert len(pictures) == len(figures) * (2 if scenario == "from-scratch" else 1)
    assert scenario in elements.text
    assert "val/" not in elements.text
