"""A machine's home with a dataset, weights and a run in it, as the supervisor would have fetched them."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote_from_bytes

from PIL import Image as Pillow

from remote.contract import document, scenarios
from remote.contract.dataset_manifest import DatasetManifest, Flips, Image, Split, encode
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.run_spec import DatasetRef, WeightsRef
from tests.documents import run_spec

_EPOCH = "2026-08-07T14:25:30Z"


@dataclass(frozen=True)
class Dataset:
    manifest: DatasetManifest
    data: bytes  # of the manifest's file
    version: str


def home(folder: Path) -> MachineHome:
    result = MachineHome(folder)
    for part in (result.runs, result.root / "packs", result.root / "weights"):
        part.mkdir(parents=True)
    return result


def pack_folder(
    machine: MachineHome,
    folder: Path,
    *,
    flips: Flips = "horizontal",
    window: Sequence[float] | None = None,
    limit: int | None = None,
    exclude: Sequence[str] = (),
) -> Dataset:
    """Pack an ImageFolder, `<split>/<class>/*`, into the machine's packs.

    limit    images of each class in each split
    exclude  paths that are left out of training
    """
    files = [
        path
        for split in sorted(path for path in folder.iterdir() if path.is_dir())
        for class_folder in sorted(split.iterdir())
        for path in sorted(class_folder.iterdir())[:limit]
        if not path.name.endswith(".gif")
    ]
    beside = machine.root / "packs" / "new.tar"
    images = []
    with tarfile.open(beside, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path in files:
            info = tarfile.TarInfo(
                hashlib.sha256(path.read_bytes()).hexdigest()
                + path.suffix.encode().decode("ascii", "replace")
            )
            info.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(info, file)
            offset = tar.offset - -(-info.size // 512) * 512
            images.append(_entry(path, folder, offset, exclude))
    pack = hashlib.sha256(beside.read_bytes()).hexdigest()
    beside.replace(machine.pack(pack))
    manifest = DatasetManifest(
        dataset="trees",
        classes=sorted({image.class_name for image in images}),
        split_source="folders",
        flips=flips,
        intensity_window=None if window is None else list(window),
        images=sorted(
            (dataclasses.replace(image, pack=pack) for image in images), key=lambda image: image.path
        ),
    )
    return Dataset(manifest, *encode(manifest))


def put_weights(machine: MachineHome, path: Path, source: str = "ImageNet V1") -> WeightsRef:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    shutil.copyfile(path, machine.weights(digest))
    return WeightsRef(source, digest, f"weights/{path.name}")


def put_run(
    machine: MachineHome,
    dataset: Dataset,
    *,
    scenario: str = "fixed-extractor",
    model: str = "squeezenet1_1",
    weights: WeightsRef | None = None,
    tail: str = "k3qz",
    seed: int = 0,
    **parameters: Any,
) -> RunFolder:
    """A run folder with its spec and manifest, ready for `remote.train.main(folder.spec)`."""
    run_id = f"{scenario}-20260807-142530-{tail}"
    folder = machine.run(run_id)
    folder.root.mkdir()
    folder.manifest.write_bytes(dataset.data)
    spec = run_spec(
        run_id=run_id,
        scenario=scenario,
        dataset=DatasetRef(dataset.manifest.dataset, dataset.version),
        model=model,
        weights=weights or WeightsRef("none"),
        parameters=scenarios.resolve(scenario, {"decode_workers": 2, **parameters}),
        seed=seed,
        created=_EPOCH,
    )
    document.write(folder.spec, spec)
    return folder


def _entry(path: Path, folder: Path, offset: int, exclude: Sequence[str]) -> Image:
    relative = quote_from_bytes(bytes(path.relative_to(folder)), safe="/")
    data = path.read_bytes()
    with Pillow.open(path) as image:
        size, mode, pages = image.size, image.mode, getattr(image, "n_frames", 1)
    split, class_name = path.relative_to(folder).parts[:2]
    return Image(
        path=relative,
        split=cast(Split, split),
        class_name=class_name,
        label_source="folder",
        group=None,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        mtime_ns=0,
        width=size[0],
        height=size[1],
        orientation=1,
        pages=pages,
        page=0,
        mode=mode,
        pack="0" * 64,
        offset=offset,
        excluded="equal to one of val" if relative in exclude else None,
    )
