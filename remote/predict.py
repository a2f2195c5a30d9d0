"""What a model says of images: the same preprocessing, network and temperature as in its training.

`python -m remote predict MODEL_DIR PATHS...` writes a JSON line for each path, in their order:
{"path", "predicted", "probabilities": {class: p}}, or {"path", "error"}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from remote.contract.document import ContractError
from remote.errors import CannotRun
from remote.images.data import batches, worker_count
from remote.images.decoding import Unreadable, decode
from remote.images.preprocessing import Pixels, pixels
from remote.measures.evaluation import Floats, probabilities
from remote.results.artefacts import DIGITS, ModelCard, read_card
from remote.results.classifier import open_classifier
from remote.task import choose_device

_BATCH_SIZE = 32


def main(model_dir: Path, paths: Sequence[Path]) -> int:
    """Print a line for each path. 0, or 3 when the model can't be used or some images can't be read."""
    complete = True
    try:
        for line in predict(model_dir, paths):
            print(json.dumps(line), flush=True)
            complete = complete and "error" not in line
    except (CannotRun, ContractError, OSError) as error:
        print(f"The model can't be used: {error}", file=sys.stderr)
        return 3
    return 0 if complete else 3


def predict(model_dir: Path, paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """A line for each path, in their order. CannotRun, ContractError, OSError when the model can't be used."""
    card = read_card(model_dir)
    model = open_classifier(card, model_dir / "model.safetensors", choose_device())

    def load(path: Path) -> Pixels | str:
        try:
            return pixels(card.preprocessing, decode(path.read_bytes(), window=card.intensity_window))
        except (Unreadable, OSError) as error:
            return str(error)

    for batch in batches(paths, load, batch_size=_BATCH_SIZE, workers=worker_count(0)):
        good = [loaded for loaded in batch.loaded if not isinstance(loaded, str)]
        rows = iter(probabilities(model.logits(good), card.temperature))
        for path, loaded in zip(batch.items, batch.loaded, strict=True):
            yield _failed(path, loaded) if isinstance(loaded, str) else _said(path, card, next(rows))


def _said(path: Path, card: ModelCard, shares: Floats) -> dict[str, Any]:
    by_class = {name: round(float(share), DIGITS) for name, share in zip(card.classes, shares, strict=True)}
    return {"path": str(path), "predicted": card.classes[int(shares.argmax())], "probabilities": by_class}


def _failed(path: Path, why: str) -> dict[str, Any]:
    return {"path": str(path), "error": why}
