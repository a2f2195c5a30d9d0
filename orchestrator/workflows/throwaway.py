"""A machine and a store for one purpose, of which nothing is left: for a demo, or a rehearsal."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.config import MachineSettings, ProviderName, Settings
from orchestrator.errors import CloudError
from orchestrator.workflows.machines.down import down
from orchestrator.workflows.workspace import Workspace

MAX_HOURS = 1  # a process that is killed leaves a machine that ends by itself


@contextmanager
def throwaway(
    workspace: Workspace, purpose: str, *, provider: ProviderName, image: str = ""
) -> Iterator[Workspace]:
    """A workspace in a temporary folder; whatever happens in it, Ctrl-C too, its machine is deleted at the end.

    purpose         a word, for the names of both
    image           of the machine; empty: what the provider gives
    """
    owner = workspace.settings.owner_label
    with tempfile.TemporaryDirectory(prefix=f"tlvm-{purpose}-") as folder:
        settings = Settings(
            provider=provider,
            owner=owner,
            machine=MachineSettings(
                name=f"tlvm-{owner}-{purpose}-{secrets.token_hex(2)}", max_hours=MAX_HOURS, image=image
            ),
            folder=Path(folder),
            data_dir=Path(folder, "data"),
        )
        _share_cache(workspace.settings.data_dir / "cache", settings.data_dir / "cache")
        own = Workspace(settings, workspace.progress)
        try:
            yield own
        finally:
            down(own, force=True)


def _share_cache(shared: Path, own: Path) -> None:
    """Downloaded wheels and weights are worth keeping for what comes after."""
    try:
        shared.mkdir(mode=0o700, parents=True, exist_ok=True)
        own.parent.mkdir(mode=0o700, parents=True)
        own.symlink_to(shared.absolute(), target_is_directory=True)
    except OSError as error:
        raise CloudError(f"{shared} can't be written", detail=str(error), next="Make it writable.") from None
