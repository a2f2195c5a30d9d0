"""A rehearsal: what it has proven, what it could not, and the command that does it in earnest."""

from __future__ import annotations

from orchestrator.render.console import Screen
from orchestrator.render.progress import labelled
from orchestrator.render.text import duration
from orchestrator.workflows.runs.rehearse import IMAGES_EACH, RehearsalResult
from remote.contract.wording import count

_WHERE = {"local": "this computer", "docker": "a container of this computer"}


def result(screen: Screen, found: RehearsalResult) -> None:
    where = _WHERE.get(found.provider, found.provider)
    screen.line(
        labelled(
            "data",
            f"{count(found.images, 'image')} of {found.dataset} {found.dataset_version[:8]}, about {IMAGES_EACH} of each "
            f"class and split, out of {count(found.packs, 'pack')}: verified",
        )
    )
    for run in found.runs:
        smaller = ", ".join(f"{name} {how}" for name, how in run.changed.items())
        screen.line(
            labelled(
                "proven",
                f"{run.scenario}, {run.model}, {run.weights}: fetched, trained, evaluated, published, verified, pulled; "
                f"{duration(run.seconds)}{f'; smaller: {smaller}' if smaller else ''}",
            )
        )
    screen.line(labelled("open", "a GPU, memory and time at full size, and how good the model gets"))
    screen.line(
        f"rehearsed in {duration(found.seconds)} on {where}; machine, store and results are gone, nothing was rented",
        style="green",
    )
    screen.next(found.next)
