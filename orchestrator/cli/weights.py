"""weights, weights push: the pre-trained weights that the store keeps."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import Common, command
from orchestrator.errors import AuthError, CloudError


@command(AuthError, CloudError)
def weights(common: Common) -> None:
    """The pre-trained weights that the store keeps; push adds some."""
    from orchestrator.render.weights import listed
    from orchestrator.workflows.data.weights import stored_weights

    common.show("weights", stored_weights(common.workspace()), listed)


@command(AuthError, CloudError, below="weights")
def push(
    common: Common,
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|FILE", help="A model of torchvision, or a .pth or .safetensors file of yours."
        ),
    ],
) -> None:
    """Put weights into the store, checked by their hash.

    Runs then take them by name: --weights FILE.
    """
    from orchestrator.render.weights import listed
    from orchestrator.workflows.data.weights import push_weights

    common.show("weights push", push_weights(common.workspace(), what), listed)


@command(AuthError, CloudError, below="weights")
def list(common: Common) -> None:
    """The same as tlvm weights."""
    from orchestrator.render.weights import listed
    from orchestrator.workflows.data.weights import stored_weights

    common.show("weights list", stored_weights(common.workspace()), listed)


COMMANDS = (push, list)
