"""Columns that take little memory: contents found by hash, whether the first 8 bytes tell them apart or not; words whose
codes grow with their number; what was packed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from orchestrator.datasets.columns.hashes import Digests, Lookup, digests, distinct, is_among, ordered
from orchestrator.datasets.columns.words import Words
from orchestrator.datasets.packs.taken import Taken


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


def test_many_contents_are_found_part_by_part() -> None:
    numbers = np.arange(150_000, dtype=">u8")
    hashes: Digests = np.frombuffer(np.repeat(numbers, 4).tobytes(), dtype="S32")
    assert (Lookup(hashes[1:]).find(hashes) == np.arange(-1, len(hashes) - 1)).all()


@pytest.mark.parametrize(("count", "code_bytes"), [(1, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 4)])
def test_a_word_takes_as_few_bytes_as_their_number_allows(count: int, code_bytes: int) -> None:
    values = list(range(count))
    words = Words.of_values(values[: count // 2])
    words.extend(values[count // 2 :])
    codes, _ = kept = words.kept()
    assert len(bytes(codes)) == code_bytes * count
    assert list(words) == list(Words.again(bytes(codes), kept[1])) == values
    assert list(words.take(np.array([count - 1, 0]))) == [count - 1, 0]
    assert list(words.joined(Words.of_values([-1, 0]))) == [*values, -1, 0]
    assert words.array().dtype == np.int32


@pytest.mark.parametrize("newest_max", [1, 3, 100])
def test_what_was_packed_is_not_packed_again(newest_max: int) -> None:
    taken = Taken(newest_max)
    before: set[int] = set()
    for beginnings in np.random.default_rng(0).integers(0, 40, (30, 5), dtype=np.uint64):
        wanted = beginnings != 7
        expected = []
        for beginning, is_wanted in zip(beginnings.tolist(), wanted.tolist(), strict=True):
            expected.append(is_wanted and beginning not in before)
            before |= {beginning} if is_wanted else set()
        assert taken.take(beginnings, wanted) == expected
