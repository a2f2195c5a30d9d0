"""Groups that only the names betray are noticed; names that mean nothing are not."""

from __future__ import annotations

import numpy as np
import pytest

from remote.contract.dataset_manifest import Image
from remote.measures.grouping import suspicions
from tests import documents


def _image(path: str, class_name: str, group: str | None = None) -> Image:
    return documents.image(path, class_name=class_name, group=group)


def _patients(
    spread: float, *, layout: str = "train/{c}/p{p:02}_{i}.jpg"
) -> tuple[np.ndarray, np.ndarray, list[Image]]:
    """20 patients of each of two classes, 8 images each; `spread`: how far patients lie apart, images being 1 apart."""
    generator = np.random.default_rng(0)
    features, labels, images = [], [], []
    for label, name in enumerate(("healthy", "ill")):
        for patient in range(20):
            centre = generator.normal(size=32) * spread
            centre[0] += 1.5 * label
            for index in range(8):
                features.append(centre + generator.normal(size=32))
                labels.append(label)
                images.append(_image(layout.format(c=name, p=patient, i=index), name))
    return np.array(features, dtype=np.float32), np.array(labels), images


def test_patients_in_names_are_noticed() -> None:
    features, labels, images = _patients(3.0)
    [found] = suspicions(features, labels, images, seed=0)
    assert (found.by, found.groups, found.n) == ("name", 40, 320)
    assert found.with_own > 0.95 and found.without_own < 0.7 and found.large
    assert "The names look like groups (40, such as 'train/healthy/p00')" in found.text
    assert "--group-by" in found.text


def test_patients_in_folders_are_noticed() -> None:
    features, labels, images = _patients(3.0, layout="train/{c}/patient {p}/{i}.jpg")
    by_folder = next(one for one in suspicions(features, labels, images, seed=0) if one.by == "folder")
    assert by_folder.large and by_folder.groups == 40


def test_names_that_mean_nothing_are_no_alarm() -> None:
    features, labels, images = _patients(0.0)
    assert all(not one.large for one in suspicions(features, labels, images, seed=0))


@pytest.mark.parametrize("layout", ["train/{c}/{p}{i}.jpg", "train/{c}/IMG_{p:02}{i}.jpg"])
def test_counted_names_suggest_nothing(layout: str) -> None:
    features, labels, images = _patients(3.0, layout=layout)
    assert suspicions(features, labels, images, seed=0) == []


def test_a_prefix_that_covers_a_class_is_no_group() -> None:
    """As in names by source: leaving nearly a whole class out leaves nothing near."""
    features, labels, images = _patients(0.0)
    renamed = [
        _image(f"train/{one.class_name}/d{row % 40 == 0}_x{row}.jpg", one.class_name)
        for row, one in enumerate(images)
    ]
    assert suspicions(features, labels, renamed, seed=0) == []


def test_known_groups_need_no_suspicion() -> None:
    features, labels, images = _patients(3.0)
    images[0] = _image(images[0].path, "healthy", "p00")
    assert suspicions(features, labels, images, seed=0) == []
