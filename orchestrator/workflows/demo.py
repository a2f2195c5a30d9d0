"""`tlvm demo`: the whole way on sample images, with a machine and a store of its own, and nothing is left of either.

The images are handwritten digits, so that it works without internet. Where ImageNet weights can be had, they are the
source of the transfer; elsewhere a network that is trained on the digits 0 to 4 is the source for 5 to 9.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator import weights
from orchestrator.config import DatasetSettings, RunSettings
from orchestrator.datasets.samples import write_digits
from orchestrator.errors import CloudError, Interruption, RunFailed
from orchestrator.workflows.data.upload import upload
from orchestrator.workflows.machines.down import down
from orchestrator.workflows.machines.up import up
from orchestrator.workflows.runs.run import Detached, RunResult, run
from orchestrator.workflows.throwaway import MAX_HOURS, throwaway
from orchestrator.workflows.workspace import Workspace

MODEL = "resnet18"
_IMAGES_EACH = 120  # a digit; there are 174 or more
_CONNECT_S = 4  # who has no internet should not wait long to be told
_DOWNLOAD_S = 30  # for 45 MB
_SMALL_PX = 32  # what the network sees in the transfer between digits, and the side of the sample images
_EPOCHS = 5

Event = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class DemoResult:
    """What was transferred, and how well that went on images that chose nothing."""

    transfer: Literal["imagenet", "digits"]
    why: str  # one line: which of the two, and why
    source: RunResult | None  # the run that trained the source network; None when that is ImageNet's
    run: RunResult  # the transfer; its folder is gone
    seconds: float


def demo(workspace: Workspace, *, on_event: Event | None = None) -> DemoResult:
    """Bring up a machine, upload, train, show, take it down.

    Provider and owner are those of the settings; nothing else of them is used, and nothing of theirs is touched.
    ConfigError   scikit-learn, which carries the images, or torch is not installed
    """
    began = time.monotonic()
    with _own(workspace) as own:
        up(own)
        refused = _imagenet_refused(own)
        if refused is not None:
            why = (
                f"ImageNet weights can't be had here ({refused}): the digits 0 to 4 are the source for 5 to 9"
            )
            own.progress.say("demo", why)
            first: dict[str, int | str] = {
                "image_size": _SMALL_PX,
                "epochs": _EPOCHS,
                "augmentation": "light",
            }
            source = _on_digits(own, "0-4", "from-scratch", "none", first, on_event)
            transfer = _on_digits(own, "5-9", "fixed-extractor", f"run:{source.run_id}", {}, on_event)
        else:
            why = "ImageNet weights can be had: they are the source for the digits 0 to 9"
            own.progress.say("demo", why)
            source = None
            transfer = _on_digits(own, "0-9", "fixed-extractor", "imagenet", {}, on_event)
        down(own)
    seconds = time.monotonic() - began
    return DemoResult("digits" if source else "imagenet", why, source, transfer, seconds)


@contextmanager
def _own(workspace: Workspace) -> Iterator[Workspace]:
    try:
        with throwaway(workspace, "demo", provider=workspace.settings.provider) as own:
            yield own
    except KeyboardInterrupt:
        raise Interruption("The demo has ended its machine", next="tlvm demo does it again.") from None


def _imagenet_refused(own: Workspace) -> str | None:
    """Why ImageNet weights can't be had soon; None when they are in the store of the demo."""
    try:
        weights.resolve(
            own.store,
            MODEL,
            "imagenet",
            progress=own.progress,
            cache_folder=own.settings.data_dir / "cache",
            connect_timeout_s=_CONNECT_S,
            limit_s=_DOWNLOAD_S,
        )
    except CloudError as error:
        return error.detail.rstrip(".")
    return None


def _on_digits(
    own: Workspace,
    digits: str,
    scenario: str,
    weights_from: str,
    parameters: Mapping[str, int | str],
    on_event: Event | None,
) -> RunResult:
    """Write the images, upload them, train on them."""
    name = f"digits-{digits}"
    count = write_digits(own.settings.folder / name, digits, each=_IMAGES_EACH)
    own.progress.say("images", f"{count} handwritten digits, {digits.replace('-', ' to ')}, as PNG files")
    upload(own, own.settings.folder / name)
    settings = own.settings.model_copy(
        update={
            "run": RunSettings(model=MODEL, weights=weights_from, max_hours=MAX_HOURS),
            "dataset": DatasetSettings(name=name),
        }
    )
    try:
        return run(Workspace(settings, own.progress), scenario, parameters=parameters, on_event=on_event)
    except Detached:
        own.progress.say("demo", "interrupted: its machine and its store are deleted, the run with them")
        raise KeyboardInterrupt from None
    except RunFailed as error:
        raise RunFailed(error.what, detail=error.detail, next="tlvm doctor looks at this computer.") from None
