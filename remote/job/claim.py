"""Whose run it is: the status in the store names the attempt that may write, and a later one takes it over.

A machine that was cut off and given up may come back when another one goes on with its run. It finds the status of a
later attempt in the store, or a final one that it did not write, and writes nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from remote.contract import document, layout
from remote.contract.document import ContractError
from remote.contract.layout import RunFolder
from remote.contract.run_status import FINAL, RunStatus
from remote.store import Store, StoreChanged, StoreMissing


class Superseded(Exception):
    """Somebody else speaks for this run now; the text says who."""


class Claim:
    """The status of one run in the store, written by one attempt at a time."""

    def __init__(
        self, open_store: Callable[[], Store], run_id: str, folder: RunFolder, *, attempt: int
    ) -> None:
        self._open_store = open_store
        self._key = layout.run_key(run_id, "status.json")
        self._folder = folder
        self._attempt = attempt
        self._generation: int | None = (
            None  # of what we have read or written last; None: not looked yet, 0: none
        )
        self._text = b""  # that is in the store
        self._tried = b""  # and may be there, when the answer was lost

    def check(self) -> None:
        """Superseded when it is not ours any more; StoreError"""
        blob = self._open_store().get(self._key)
        generation = blob.generation if blob else 0
        if generation == self._generation:
            return
        if blob is not None:
            self._read()
        self._generation, self._text = generation, b""

    def publish(self) -> None:
        """The status as it is now, when that is not there yet. Superseded, StoreError, OSError"""
        text = self._folder.status.read_bytes()
        if text == self._text:
            return
        if self._generation is None:
            self.check()
        piece = self._folder.root / ".status"
        piece.write_bytes(text)
        self._tried = text
        try:
            blob = self._open_store().upload(piece, self._key, if_generation=self._generation)
        except StoreChanged:
            self.check()
            blob = self._open_store().upload(piece, self._key, if_generation=self._generation)
        self._generation, self._text = blob.generation, text

    def _read(self) -> None:
        piece = self._folder.root / ".claim"
        try:
            found, text = read_stored_status(self._open_store(), self._key, piece)
        except (StoreMissing, ContractError):
            return  # gone between two looks, or damaged: nobody's word, and ours replaces it
        if found.attempt > self._attempt:
            where = found.attempts[-1].machine if found.attempts else "another machine"
            raise Superseded(f"attempt {found.attempt} on {where} goes on with this run")
        if found.state in FINAL and found.attempt == self._attempt and text != self._tried:
            raise Superseded(f"the run was ended as {found.state} by somebody else")


def read_stored_status(store: Store, key: str, piece: Path) -> tuple[RunStatus, bytes]:
    """And its text. StoreMissing, StoreError; ContractError when it is damaged."""
    try:
        store.download(key, piece)
        text = piece.read_bytes()
        return document.decode(RunStatus, text, what=f"run status {key}"), text
    finally:
        piece.unlink(missing_ok=True)
