"""One side of the benchmark of fetching and reading: `python -m tests.benchmarks.fetch_side SIDE ...`."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from remote.contract import document, layout
from remote.contract.dataset_manifest import DatasetManifest, Image, decode_manifest
from remote.contract.layout import MachineHome
from remote.contract.run_spec import DatasetRef, RunSpec, StoreRef, WeightsRef
from remote.job.fetch import fetch
from remote.store import open_store
from tests.benchmarks import measure

RUN = "fixed-extractor-20260807-142530-k3qz"


def bring(endpoint: str, home: str) -> Mapping[str, Any]:
    """What a run fetches, into a home that has nothing."""
    ref = StoreRef("gs://ours", endpoint)
    store = open_store(ref)
    (key,) = [blob.key for blob in store.blobs(layout.DATASETS) if blob.key.endswith(".jsonl.gz")]
    name, _, rest = key.removeprefix(layout.DATASETS).partition("/manifests/")
    spec = RunSpec(
        run_id=RUN, scenario="fixed-extractor", dataset=DatasetRef(name, rest.removesuffix(".jsonl.gz")),
        model="resnet18", weights=WeightsRef("none"), store=ref, bundle="0" * 64, parameters={}, seed=0, owner="bench",
        project="bench", machine="bench", created="2026-08-07T14:25:30+00:00", max_hours=1.0, tlvm_version="0",
    )  # fmt: skip
    machine = MachineHome(Path(home))
    folder = machine.run(RUN)
    folder.root.mkdir(parents=True)
    document.write(folder.spec, spec)
    fetch(spec, machine, store, lambda done, total: None)
    return {"images": len(manifest(machine).images)}


def packs(home: str, _: str) -> Mapping[str, Any]:
    from remote.images.data import Packs  # loads torch, which a fetch does not

    machine = MachineHome(Path(home))
    images = manifest(machine).images
    return timed(images, lambda: Packs(machine.pack).read, {machine.pack(image.pack) for image in images})


def files(folder: str, home: str) -> Mapping[str, Any]:
    images = manifest(MachineHome(Path(home))).images
    paths = {image.path: os.path.join(folder, image.path) for image in images}  # noqa: PTH118  # no work while timed

    def read(image: Image) -> bytes:
        with open(paths[image.path], "rb", buffering=0) as file:  # noqa: PTH123
            return file.read()

    return timed(images, lambda: read, map(Path, paths.values()))


def timed(
    images: Sequence[Image], reader: Callable[[], Callable[[Image], bytes]], paths: Iterable[Path]
) -> Mapping[str, Any]:
    """Seconds of reading them all in a shuffled order: after their pages were dropped from memory, and again."""
    shuffled = random.Random(0).sample(images, len(images))
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    seconds = {}
    for heat in ("cold", "warm"):
        read = reader()
        began = time.perf_counter()
        size = sum(len(read(image)) for image in shuffled)
        seconds[heat] = time.perf_counter() - began
        assert size == sum(image.size for image in images)
    return seconds


def manifest(home: MachineHome) -> DatasetManifest:
    spec = document.decode(RunSpec, home.run(RUN).spec.read_bytes(), what="spec")
    data = home.run(RUN).manifest.read_bytes()
    return decode_manifest(data, version=spec.dataset.version)


SIDES: Mapping[str, Callable[[str, str], Mapping[str, Any]]] = {
    "fetch": bring,
    "packs": packs,
    "files": files,
}

if __name__ == "__main__":
    measure.report(lambda: SIDES[sys.argv[1]](*sys.argv[2:]))
