"""The weights that the store keeps."""

from __future__ import annotations

from orchestrator.render.console import Screen
from orchestrator.render.text import columns, size
from orchestrator.workflows.data.weights import StoredWeights, WeightsResult
from remote.contract.models import MODELS


def listed(screen: Screen, result: WeightsResult) -> None:
    if not result.files:
        screen.line(f"There are no weights in {result.store} yet.")
        screen.next("tlvm weights push MODEL or FILE; a run brings the weights of its model by itself")
        return
    for line, one in zip(columns(_row(one) for one in result.files), result.files, strict=True):
        screen.line(line, style="" if one.whole else "red")
    file = result.files[0].file
    model = next((name for name, known in MODELS.items() if known.file == file), "MODEL")
    screen.next(f"tlvm run fixed-extractor --model {model} --weights {file}")


def _row(one: StoredWeights) -> tuple[str, ...]:
    state = "" if one.whole else "damaged: push it again"
    return one.file, size(one.size), f"sha256 {one.sha256[:8]}", f"from {one.origin}", state
