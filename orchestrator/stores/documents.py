"""Small documents of a store, read and written whole. Others may have written them: size is looked at first."""

from __future__ import annotations

import tempfile
from pathlib import Path

from orchestrator.errors import NotFoundError
from orchestrator.stores.base import Blob, Store
from remote.contract.document import ContractError


def read_document(
    store: Store, key: str, *, bytes_max: int, listed: Blob | None = None
) -> tuple[bytes, Blob] | None:
    """What it says, and the blob as it was before; so what changes in between makes a later write fail, not get lost.

    listed          as a listing has just had it: the store is not asked for it once more
    None            there is none
    ContractError   it is larger than that
    """
    blob = listed or store.get(key)
    if blob is None:
        return None
    if blob.size > bytes_max:
        raise ContractError(f"{key} has {blob.size} bytes, more than {bytes_max}")
    with tempfile.TemporaryDirectory(prefix="tlvm-") as folder:
        path = Path(folder) / "document"
        try:
            store.download(key, path)
        except NotFoundError:
            return None
        return path.read_bytes(), blob


def write_document(store: Store, key: str, text: str, *, if_generation: int) -> None:
    """ConflictError where the generation does not hold; 0: there is none yet."""
    with tempfile.TemporaryDirectory(prefix="tlvm-") as folder:
        path = Path(folder) / "document"
        path.write_text(text, encoding="utf-8")
        store.upload(path, key, if_generation=if_generation)
