"""Finding contents by hash: the same whether the first 8 bytes tell them apart or not."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from orchestrator.datasets.columns.hashes import Digests, Lookup, digests, distinct, is_among, ordered


def _hashes(*, alike: bool) -> Digests:
    """Fifty contents in no order, some of them twice; of those that begin alike some end in zeros."""
    each = [hashlib.sha256(str(number % 50).encode()).hexdigest() for number in range(60)]
    if alike:
        each = [
            "00" * 8 + ("00" * 24 if number % 50 == 7 else sha256[16:]) for number, sha256 in enumerate(each)
        ]
    return digests(each)


@pytest.mark.parametrize("alike", [False, True])
def test_contents_are_told_apart_by_all_of_their_hash(alike: bool) -> None:
    hashes = _hashes(alike=alike)
    contents, first, which = distinct(hashes)
    assert contents.tolist() == sorted(set(hashes.tolist()))
    assert first.tolist() == [hashes.tolist().index(content) for content in contents.tolist()]
    assert (contents[which] == hashes).all()
    assert (ordered(hashes) == np.argsort(hashes, kind="stable")).all()


@pytest.mark.parametrize("alike", [False, True])
def test_the_first_place_of_a_content_is_found(alike: bool) -> None:
    hashes = _hashes(alike=alike)
    strange = digests(["00" * 8 + "ff" * 24, "ff" * 32])
    found = Lookup(hashes).find(np.concatenate([hashes[::3], strange]))
    assert found.tolist() == [hashes.tolist().index(content) for content in hashes[::3].tolist()] + [-1, -1]
    assert is_among(hashes, hashes[:5]).tolist() == [
        content in hashes[:5].tolist() for content in hashes.tolist()
    ]


def test_among_none_nothing_is_found() -> None:
    none = digests([])
    assert Lookup(none).find(_hashes(alike=False)).max() == -1
    assert not len(Lookup(_hashes(alike=False)).find(none))
    assert [len(part) for part in distinct(none)] == [0, 0, 0]
