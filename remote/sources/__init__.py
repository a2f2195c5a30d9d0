"""Where architectures come from. Everything else asks here, so another source is one file beside `torchvision.py`.

A model of torchvision has its plain name ("resnet18"); one of another source has the source's name in front
("timm:resnet18.a1_in1k"). A new source is a module that satisfies `Source`, and a line in `SOURCES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol, cast

from torch import Tensor, nn

from remote.errors import CannotRun

DEFAULT = "torchvision"
SOURCES = {DEFAULT: "remote.sources.torchvision"}  # modules, imported when a model of theirs is asked for


class Source(Protocol):
    """What is known of the architectures of one library. `model` is a name with the source in front, where it has one.

    Each of these raises CannotRun for a model that the source does not have.
    """

    def build(self, model: str, classes: int) -> nn.Module:
        """The architecture with new weights, drawn from torch's generator, and an output for each class.

        Takes (n, 3, height, width), gives logits (n, classes). Modules are named in the order in which they are passed.
        """

    def arguments(self, model: str) -> dict[str, Any]:
        """For model.json: what the library's builder is given besides the number of classes."""

    def head_path(self, model: str) -> str:
        """The module, `nn.Linear` or a `nn.Conv2d` of 1 x 1, that turns features into logits; nothing of weight follows."""

    def stage_ends(self, model: str) -> tuple[str, ...]:
        """The modules after which the network is looked into, from the input on; none where they are not known."""

    def preprocessing(self, model: str) -> dict[str, Any]:
        """What its pre-trained weights were made to see: the fields of `remote.images.preprocessing.Preprocessing`."""

    def todays_names(self, model: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a file of weights under the names that the architecture has today, without what it never uses."""

    def loading(self, model: str) -> tuple[str, str]:
        """For the README beside a model, as Python: the import, and an expression that builds it from `card` (model.json)."""


def source_of(model: str) -> Source:
    """The source of a model. CannotRun where there is none of that name."""
    name = model.partition(":")[0] if ":" in model else DEFAULT
    if name not in SOURCES:
        raise CannotRun(f"{model[:80]!r} is of no source of models: there is {', '.join(sorted(SOURCES))}")
    return cast(Source, import_module(SOURCES[name]))
