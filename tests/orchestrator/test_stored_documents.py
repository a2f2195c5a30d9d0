"""A small document of a store: read whole or not at all, written only over what was read."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import ConflictError
from orchestrator.stores import open_store
from orchestrator.stores.base import Store
from orchestrator.stores.documents import read_document, write_document
from remote.contract.document import ContractError
from remote.contract.run_spec import StoreRef


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(StoreRef(str(tmp_path / "store")))


def test_what_was_written_is_read_with_its_generation(store: Store) -> None:
    assert read_document(store, "notes/a.json", bytes_max=10) is None
    write_document(store, "notes/a.json", "für", if_generation=0)
    found = read_document(store, "notes/a.json", bytes_max=4)
    assert found and found[0].decode() == "für"
    write_document(store, "notes/a.json", "{}", if_generation=found[1].generation)
    with pytest.raises(ConflictError):
        write_document(store, "notes/a.json", "[]", if_generation=found[1].generation)


def test_one_that_is_too_large_is_not_read(store: Store) -> None:
    write_document(store, "notes/a.json", "12345", if_generation=0)
    with pytest.raises(ContractError, match=r"notes/a\.json has 5 bytes, more than 4"):
        read_document(store, "notes/a.json", bytes_max=4)
