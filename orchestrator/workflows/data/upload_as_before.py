"""What becomes of images before they travel, where the user does not say it: the same as the last time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from orchestrator.datasets.checks.convert import Conversion
from orchestrator.datasets.checks.offer import Offer, offer
from orchestrator.datasets.folder.scan import Scan
from orchestrator.workflows.workspace import Workspace


def conversion_now(
    workspace: Workspace,
    scans: Sequence[Scan],
    said: Conversion,
    ask: Callable[[Offer], bool] | None,
    *,
    sending: bool,
) -> Conversion:
    """What was said; else what was done the last time, so that nothing is sent again, and no place that was taken out;
    else what the user answers."""
    store = workspace.store.url if sending else workspace.settings.store_ref.url  # a check opens no store
    found_before = (workspace.records.seen(scan.root, store, scan.name) for scan in scans)
    before = [seen for seen in found_before if seen is not None]
    now = said.after(Conversion.of(next((seen.how for seen in before if seen.how), "")))
    for text in _as_last_time(said, now):
        workspace.progress.say("as last", text)
    if said.resize_px is None and not before and (found := offer(scans)):
        if ask is not None and sending:
            now = dataclasses.replace(now, resize_px=found.resize_px if ask(found) else None)
        else:
            workspace.progress.say("size", f"{found.told}: --resize {found.resize_px}")
    return now


def _as_last_time(said: Conversion, now: Conversion) -> Iterator[str]:
    if said.resize_px is None and now.resize_px:
        yield f"images are sent at {now.resize_px} px; --resize 0 sends them as they are"
    if said.page is None and now.page:
        yield f"of several pages {now.page} is taken; --page 0 takes none"
    if said.strip_metadata is None and now.strip_metadata:
        yield "metadata is taken out; --keep-metadata leaves it in"
