"""Small packs that have become many, merged on the way of an upload that has something to send anyway."""

from __future__ import annotations

from collections import defaultdict

from orchestrator.datasets.columns.rows import Rows
from orchestrator.datasets.folder.names import encode
from orchestrator.datasets.folder.scan import Scan
from remote.contract.dataset_manifest import Image

SMALL_BYTES = 8 * 1024**2  # of images that count
SMALL_MAX = 16  # packs


def mergeable(scan: Scan, newest: Rows[Image]) -> set[str]:
    """The contents of small packs that are to be packed anew, by hash: none unless there are many, and something is new.

    Only packs all of whose images seem to be in the folder; what others added stays where it is.
    """
    if len(newest.codes("pack")[1]) < SMALL_MAX:
        return set()
    here = {encode(path): size for path, size in scan.files.tuples("path", "size")}
    if here.keys() <= set(newest.columns["path"]):
        return set()
    contents: dict[str, dict[str, int]] = defaultdict(dict)
    elsewhere: set[str] = set()
    for pack, path, sha256, size in newest.tuples("pack", "path", "sha256", "size"):
        contents[pack][sha256] = size
        if here.get(path) != size:
            elsewhere.add(pack)
    small = [
        held for pack, held in contents.items() if pack not in elsewhere and sum(held.values()) < SMALL_BYTES
    ]
    return set().union(*small) if len(small) >= SMALL_MAX else set()
