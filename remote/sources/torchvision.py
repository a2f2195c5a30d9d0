"""The architectures of torchvision: every classification model, by its plain name. Satisfies `remote.sources.Source`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from remote.contract.document import ContractError
from remote.contract.models import model_file
from remote.errors import CannotRun
from remote.torchvision_guard import models

# The path of the head in each family, by the start of the model's name; the longest that fits counts.
HEADS = {
    "alexnet": "classifier.6",
    "convnext": "classifier.2",
    "densenet": "classifier",
    "efficientnet": "classifier.1",
    "googlenet": "fc",
    "inception": "fc",
    "maxvit": "classifier.5",
    "mnasnet": "classifier.1",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3": "classifier.3",
    "regnet": "fc",
    "resnet": "fc",
    "resnext": "fc",
    "shufflenet": "fc",
    "squeezenet": "classifier.1",  # a convolution, followed by a ReLU and the mean over positions
    "swin": "head",
    "vgg": "classifier.6",
    "vit": "heads.head",
    "wide_resnet": "fc",
}

# How torchvision builds the ones that are not built by their name alone. Their weights were made for another scale
# of the input, which `transform_input` restores; the auxiliary heads serve training only and are left out.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "transform_input": True},
    "inception_v3": {"aux_logits": False, "transform_input": True},
}

_AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
# The old files of torchvision's DenseNets say "norm.1" where the model says "norm1".
_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\..*)$")

_RESNET = ("maxpool", "layer1", "layer2", "layer3", "layer4")


def _within(container: str, *indices: int) -> tuple[str, ...]:
    return tuple(f"{container}.{index}" for index in indices)


# Where each stage ends: the module whose output is the stage's, by the start of the model's name; the longest that
# fits counts. A new family is one line here.
ENDS: dict[str, tuple[str, ...]] = {
    "alexnet": _within("features", 2, 5, 12),
    "convnext": _within("features", 1, 3, 5, 7),
    "densenet": (
        "features.pool0",
        *(f"features.denseblock{number}" for number in (1, 2, 3)),
        "features.norm5",
    ),
    "efficientnet": _within("features", 1, 2, 3, 5, 8),
    "efficientnet_v2_s": _within("features", 1, 2, 3, 5, 7),
    "mnasnet": _within("layers", 7, 8, 9, 11, 16),
    "mobilenet_v2": _within("features", 1, 3, 6, 13, 18),
    "mobilenet_v3_large": _within("features", 1, 3, 6, 12, 16),
    "mobilenet_v3_small": _within("features", 0, 1, 3, 8, 12),
    "regnet": ("stem", *(f"trunk_output.block{number}" for number in range(1, 5))),
    "resnet": _RESNET,
    "resnext": _RESNET,
    "shufflenet": ("maxpool", "stage2", "stage3", "conv5"),
    "squeezenet1_0": _within("features", 2, 6, 11, 12),
    "squeezenet1_1": _within("features", 2, 5, 8, 12),
    "vgg11": _within("features", 2, 5, 10, 15, 20),
    "vgg11_bn": _within("features", 3, 7, 14, 21, 28),
    "vgg13": _within("features", 4, 9, 14, 19, 24),
    "vgg13_bn": _within("features", 6, 13, 20, 27, 34),
    "vgg16": _within("features", 4, 9, 16, 23, 30),
    "vgg16_bn": _within("features", 6, 13, 23, 33, 43),
    "vgg19": _within("features", 4, 9, 18, 27, 36),
    "vgg19_bn": _within("features", 6, 13, 26, 39, 52),
    "wide_resnet": _RESNET,
}


def build(model: str, classes: int) -> nn.Module:
    extra = {"init_weights": True} if model in ("googlenet", "inception_v3") else {}
    _known(model)
    module: nn.Module = models.get_model(
        model, weights=None, num_classes=classes, **arguments(model), **extra
    )
    return module


def arguments(model: str) -> dict[str, Any]:
    return dict(_ARGUMENTS.get(model, {}))


def head_path(model: str) -> str:
    family = max((name for name in HEADS if model.startswith(name)), key=len, default=None)
    if family is None:
        raise CannotRun(f"tlvm does not know where the head of {model} is")
    return HEADS[family]


def stage_ends(model: str) -> tuple[str, ...]:
    return ENDS.get(max((name for name in ENDS if model.startswith(name)), key=len, default=""), ())


def preprocessing(model: str) -> dict[str, Any]:
    _known(model)
    transform = models.get_model_weights(model)[model_file(model).weights].transforms()
    return {
        "resize": transform.resize_size[0],
        "crop": transform.crop_size[0],
        "interpolation": transform.interpolation.value,
        "mean": list(transform.mean),
        "std": list(transform.std),
    }


def todays_names(model: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    auxiliary = next((start for name, start in _AUXILIARY.items() if model == name), ())
    kept = (
        {name: tensor for name, tensor in tensors.items() if not name.startswith(auxiliary)}
        if auxiliary
        else dict(tensors)
    )
    if model.startswith("densenet"):
        kept = {_DENSENET.sub(r"\1\2", name): tensor for name, tensor in kept.items()}
    return kept


def loading(model: str) -> tuple[str, str]:
    return (
        "from torchvision import models",
        'models.get_model(card["model"], num_classes=len(card["classes"]), **card["arguments"])',
    )


def _known(model: str) -> None:
    try:
        model_file(model)
    except ContractError as error:
        raise CannotRun(str(error)) from None
