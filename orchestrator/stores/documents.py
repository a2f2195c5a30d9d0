"""Small documents of a store, read and written whole. Others may have written them: size is looked at first."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path

from orchestrator.errors import NotFoundError
from orchestrator.stores.base import Blob, Store
from remote.contract.document import ContractError


def read_document(store: Store, key: str, *, bytes_max: int) -> tuple[bytes, Blob] | None:
    """What it says, and the blob as it was before; so what changes in between makes a later write fail, not get lost.

    None            there is none
    ContractError   it is larger than that
    """
    blob = store.get(key)
    if blob is None:
        return None
    with tempfile.TemporaryDirectory(prefix="tlvm-") as folder:
        said = read_listed(store, blob, Path(folder), bytes_max=bytes_max)
    return None if said is None else (said, blob)


def read_listed(store: Store, blob: Blob, scratch: Path, *, bytes_max: int) -> bytes | None:
    """What one says that a listing has just had: the store is not asked for it once more. Nothing stays in `scratch`."""
    if blob.size > bytes_max:
        raise ContractError(f"{blob.key} has {blob.size} bytes, more than {bytes_max}")
    path = scratch / secrets.token_hex(8)
    try:
        store.download(blob.key, path)
        return path.read_bytes()
    except NotFoundError:
        return None
    finally:
        path.unlink(missing_ok=True)


def write_document(store: Store, key: str, text: str, *, if_generation: int) -> None:
    """ConflictError where the generation does not hold; 0: there is none yet."""
    with tempfile.TemporaryDirectory(prefix="tlvm-") as folder:
        path = Path(folder) / "document"
        path.write_text(text, encoding="utf-8")
        store.upload(path, key, if_generation=if_generation)
