"""What a scenario works with: the run, its images by split, the device, and how to say what it does."""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL
import torch

from remote import devices
from remote.contract import scenarios
from remote.contract.dataset_manifest import DatasetManifest, Image, decode_manifest
from remote.contract.events import STEPS, EventWriter
from remote.contract.layout import MachineHome, RunFolder
from remote.contract.run_spec import RunSpec
from remote.contract.wording import count
from remote.errors import CannotRun
from remote.images.data import Packs, Reader, usable_cores, worker_count
from remote.images.image_cache import ImageCache, free_memory_bytes
from remote.measures.evaluation import Labels
from remote.results.artefacts import read_card_file
from remote.torchvision_guard import torchvision
from remote.training.checkpoint import Checkpoints, Rhythm


@dataclass(frozen=True)
class Task:
    """One run of one scenario on this machine."""

    spec: RunSpec
    parameters: dict[str, scenarios.Value]
    manifest: DatasetManifest
    home: MachineHome
    folder: RunFolder
    reader: Reader
    events: EventWriter
    checkpoints: Checkpoints
    device: torch.device
    should_stop: Callable[[], bool]
    left_s: Callable[[], float]  # until it is stopped, because its hours are over
    seconds: dict[str, float] = field(default_factory=dict)  # by step

    @property
    def classes(self) -> list[str]:
        return self.manifest.classes

    @property
    def workers(self) -> int:
        return worker_count(self.integer("decode_workers"))

    def integer(self, name: str) -> int:
        return int(self.parameters[name])

    def number(self, name: str) -> float:
        return float(self.parameters[name])

    def images(self, *splits: str) -> list[Image]:
        """Those of the splits, in the order of the manifest; images left out of training are not among them."""
        return [image for image in self.manifest.images if image.split in splits and image.excluded is None]

    def labels(self, images: Sequence[Image]) -> Labels:
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index[image.class_name] for image in images], dtype=np.int64)

    @property
    def reported(self) -> str:
        """The split whose figure is the result: test, or else val."""
        return "test" if self.images("test") else "val"

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], None]]:
        """One of the eight steps: timed, and it can say something, as often as it likes."""

        def says(text: str) -> None:
            self.events.step(name, text)
            print(f"{STEPS.index(name) + 1} {name:<11} {text}", flush=True)

        began = time.perf_counter()
        yield says
        self.seconds[name] = round(time.perf_counter() - began, 3)

    def progress(self, step: str, total: int, unit: str) -> Callable[[int], None]:
        return lambda done: self.events.progress(step, done, total, unit)


@contextmanager
def open_task(
    spec: RunSpec,
    folder: RunFolder,
    events: EventWriter,
    should_stop: Callable[[], bool],
    rhythm: Rhythm,
    left_s: Callable[[], float] = lambda: math.inf,
) -> Iterator[Task]:
    """Read and check what the run needs. CannotRun, ContractError when it can't be used."""
    parameters = scenarios.resolve(spec.scenario, spec.parameters)
    home = MachineHome(folder.root.parent.parent)
    manifest = _manifest(folder.manifest, spec, home)
    packs, images = Packs(home.pack), ImageCache(_image_memory(parameters), home.cache)
    try:
        yield Task(
            spec=spec,
            parameters=parameters,
            manifest=manifest,
            home=home,
            folder=folder,
            reader=Reader(manifest, packs, images),
            events=events,
            checkpoints=Checkpoints(
                folder.checkpoints,
                spec.run_id,
                parameters,
                rhythm=rhythm,
                tell=lambda text: events.log(text, level="warning"),
                wrote=lambda number, size, seconds: events.emit(
                    "checkpoint", number=number, bytes=size, seconds=round(seconds, 3)
                ),
            ),
            device=choose_device(),
            should_stop=should_stop,
            left_s=left_s,
        )
    finally:
        images.close()
        packs.close()


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": str(torchvision.__version__),
        "pillow": PIL.__version__,
        "numpy": np.__version__,
    }


def choose_device() -> torch.device:
    """A GPU where torch has one, else the processor."""
    return devices.choose(cuda=torch.cuda.is_available(), mps=torch.backends.mps.is_available())


def device_name(device: torch.device) -> str:
    """ "NVIDIA L4", "Apple GPU", "2 cores (x86_64)"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "Apple GPU" if device.type == "mps" else f"{count(usable_cores(), 'core')} ({platform.machine()})"


def _image_memory(parameters: dict[str, scenarios.Value]) -> int:
    """Bytes for decoded images."""
    return 1_000_000 * int(parameters.get("image_memory_mb", 0)) or free_memory_bytes() // 2


def _manifest(path: Path, spec: RunSpec, home: MachineHome) -> DatasetManifest:
    try:
        manifest = decode_manifest(path.read_bytes(), version=spec.dataset.version)
    except OSError as error:
        raise CannotRun(
            f"The manifest of dataset {spec.dataset.name} is not on this machine: {error}"
        ) from None
    if spec.evaluates:
        # Seen as the model was trained to see it: its classes in its order, its window.
        card = read_card_file(home.weights(spec.evaluates.card_sha256))
        return dataclasses.replace(manifest, classes=card.classes, intensity_window=card.intensity_window)
    return _trainable(manifest, spec)


def _trainable(manifest: DatasetManifest, spec: RunSpec) -> DatasetManifest:
    trained = {
        image.class_name for image in manifest.images if image.split == "train" and image.excluded is None
    }
    measured = {image.class_name for image in manifest.images if image.split != "train"}
    if missing := sorted(measured - trained):
        raise CannotRun(
            f"Dataset {spec.dataset.name} has no image to train on of: {', '.join(map(repr, missing))}. "
            "Each class of val and test needs some in train."
        )
    if len(trained) < 2:
        raise CannotRun(
            f"Dataset {spec.dataset.name} has {len(trained)} class with images in train; at least 2 are needed."
        )
    # A class of the manifest that holds nothing at all would get an output that nobody can use.
    return dataclasses.replace(manifest, classes=sorted(trained))
