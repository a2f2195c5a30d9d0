"""Where exceptions of paramiko and of sockets become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.errors import AuthError, ConnectionLost
from orchestrator.providers.base import SshAddress


def text(address: SshAddress) -> str:
    return f"{address.user}@{address.host}:{address.port}"


def lost(address: SshAddress, why: str) -> ConnectionLost:
    return ConnectionLost(
        f"The SSH connection to {text(address)} was lost",
        detail=why,
        next="What runs on the machine may go on. `tlvm status` shows it; the same command again connects anew.",
    )


@contextmanager
def connecting(address: SshAddress) -> Iterator[None]:
    import paramiko

    try:
        yield
    except paramiko.BadHostKeyException as error:
        raise _changed_host_key(address, error.key.get_name()) from None
    except paramiko.AuthenticationException as error:
        raise AuthError(
            f"The machine at {text(address)} refused this computer's key",
            detail=str(error),
            next="tlvm authorize lets this computer in with a key of its own; where it may not do that: "
            "tlvm authorize KEY on the computer that made the machine.",
        ) from None
    except paramiko.SSHException as error:
        if "not found in known_hosts" in str(
            error
        ):  # the text of paramiko.RejectPolicy: a key of another type
            raise _changed_host_key(address, "a key") from None
        raise _no_answer(address, error) from None
    except (OSError, EOFError) as error:
        raise _no_answer(address, error) from None


@contextmanager
def connected(address: SshAddress) -> Iterator[None]:
    import paramiko

    try:
        yield
    except TimeoutError:
        raise lost(address, "The machine does not answer.") from None
    except (paramiko.SSHException, EOFError, OSError) as error:
        if isinstance(error, OSError) and not means_lost(error):
            raise
        raise lost(address, str(error)) from None


def means_lost(error: OSError) -> bool:
    # The text is paramiko's.
    return isinstance(error, (ConnectionError, TimeoutError)) or str(error) == "Socket is closed"


def _changed_host_key(address: SshAddress, shown: str) -> AuthError:
    return AuthError(
        f"The host key of {text(address)} is not the one that was pinned",
        detail=f"It shows {shown}, which the provider did not name. Something else answers there, or somebody listens. "
        "A host key is never re-pinned.",
        next="If the machine was really replaced, end it with `tlvm down` and make a new one with `tlvm up`.",
    )


def _no_answer(address: SshAddress, error: BaseException) -> ConnectionLost:
    return ConnectionLost(
        f"No SSH connection to {text(address)}",
        detail=str(error) or type(error).__name__,
        next="`tlvm status` shows whether the machine still runs.",
    )
