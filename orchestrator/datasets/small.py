"""Small packs that have become many, merged on the way of an upload that has something to send anyway."""

from __future__ import annotations

from collections import defaultdict

from remote.contract.dataset_manifest import DatasetManifest

from .names import encode
from .scan import Scan

SMALL_BYTES = 8 * 1024**2  # of images that count
SMALL_MAX = 16  # packs


def mergeable(scan: Scan, newest: DatasetManifest) -> set[str]:
    """The contents of small packs that are to be packed anew, by hash: none unless there are many, and something is new.

    Only packs all of whose images seem to be in the folder; what others added stays where it is.
    """
    here = {encode(file.path): file.size for file in scan.files}
    if here.keys() <= {image.path for image in newest.images}:
        return set()
    sizes: dict[str, dict[str, int]] = defaultdict(dict)
    elsewhere: set[str] = set()
    for image in newest.images:
        sizes[image.pack][image.sha256] = image.size
        if here.get(image.path) != image.size:
            elsewhere.add(image.pack)
    small = [
        contents
        for pack, contents in sizes.items()
        if pack not in elsewhere and sum(contents.values()) < SMALL_BYTES
    ]
    return set().union(*small) if len(small) >= SMALL_MAX else set()
