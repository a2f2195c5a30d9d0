"""Imports torchvision also where its compiled operators can't be loaded; everything here gets it from this module.

The CPU build of torch and the torchvision of a package index may not fit: then `import torchvision` fails with
"operator torchvision::nms does not exist", although models and transforms need none of those operators. Naming the
two that it looks for is enough. Where the operators load, nothing is defined.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

import torch

_MISSING = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _torchvision() -> ModuleType:
    try:
        return import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    for name in _MISSING:
        torch.library.define(f"torchvision::{name}", _SCHEMA)
    return import_module("torchvision")


torchvision = _torchvision()
models = torchvision.models
