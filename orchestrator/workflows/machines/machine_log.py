"""`tlvm logs --machine`: what a machine has said before anybody could come in, at any time."""

from __future__ import annotations

from orchestrator.errors import CloudError
from orchestrator.workflows.workspace import Workspace


def machine_log(workspace: Workspace) -> list[str]:
    """The end of its console, in which its startup says what it does; text from a machine, so hostile.

    NotFoundError   there is no machine
    CloudError      it has said nothing
    """
    machine = workspace.machine()
    said = workspace.provider.said(machine.name)
    if not said:
        raise CloudError(
            f"The machine {machine.name} has said nothing yet",
            detail=f"Its state is {machine.state.value}.",
            next="Try again in a minute; tlvm status shows its state.",
        )
    return said.splitlines()
