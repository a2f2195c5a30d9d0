"""`tlvm logs --machine`: what a machine has said before anybody could come in, at any time."""

from __future__ import annotations

from orchestrator.errors import CloudError
from orchestrator.workflows.workspace import Workspace


def machine_log(workspace: Workspace) -> list[str]:
    """The end of its console, in which its startup says what it does; text from a machine, so hostile.

    Empty where nothing boots, on a provider that rents nothing: such a machine writes only what goes wrong.

    NotFoundError   there is no machine
    CloudError      it is rented, and has said nothing yet
    """
    machine = workspace.machine()
    said = workspace.provider.said(machine.name)
    if not said and workspace.rented is not None:
        raise CloudError(
            f"The machine {machine.name} has said nothing yet",
            detail=f"Its state is {machine.state.value}.",
            next="Try again in a minute; tlvm status shows its state.",
        )
    if not said:
        workspace.progress.say(
            "logs",
            f"{machine.name} has written nothing: on the provider {workspace.settings.provider} a machine writes only "
            "what goes wrong. What a run prints: tlvm logs RUN",
        )
    return said.splitlines()
