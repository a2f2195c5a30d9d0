"""Every error that a user can meet, in one tree.

    TlvmError                      exit   for
    ├── ConfigError                   2   unknown key, wrong value: file, key, nearest valid key
    ├── PartialError                  3   some files failed, the rest is done; run it again
    ├── NotFoundError                 4   no such run, dataset, machine, blob
    ├── AuthError                     5   credentials, permission, API not enabled
    ├── CapacityError                 6   no GPU here now; the next place may have one
    ├── QuotaError                    6   the project may not have one
    ├── CloudError                    7   the cloud, the Docker engine or this computer refused or broke
    │   └── TransientError            7   ... and the same request may succeed a moment later (retryable)
    ├── ConnectionLost                8   SSH never came or was lost; the run may go on
    ├── RunFailed                     9   training failed: its last lines
    ├── ConflictError                10   already active, or changed meanwhile
    ├── DataError                    11   the dataset can't be used: which files, why
    └── Interrupted                  12   the machine is being taken away; the run is checkpointed and goes on

Adapters translate foreign exceptions into these at their border; `orchestrator.cli.main` alone turns one into an
exit code. Exit 1 is a bug of ours, exit 130 is Ctrl-C.
"""

from __future__ import annotations

from typing import ClassVar


class TlvmError(Exception):
    """What failed, with which thing, and what to do next.

    what     a sentence in the past or present tense, without a final stop: "The machine tlvm-ana-trees does not exist"
    detail   lines that help to understand: what was tried, what was found; may be empty
    next     what the user does now, as a command where there is one
    """

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, what: str, *, detail: str = "", next: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.detail = detail
        self.next = next

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.detail, self.next) if part)


class Interruption(KeyboardInterrupt):
    """Ctrl-C where more is known than that: what exists or goes on now, and the command that shows it."""

    def __init__(self, what: str, *, next: str) -> None:
        super().__init__(what)
        self.what = what
        self.next = next


class ConfigError(TlvmError):
    exit_code = 2


class PartialError(TlvmError):
    exit_code = 3


class NotFoundError(TlvmError):
    exit_code = 4


class AuthError(TlvmError):
    exit_code = 5


class CapacityError(TlvmError):
    exit_code = 6


class QuotaError(TlvmError):
    """`region` is the one whose quota it is; "" when it holds everywhere, so that no other place can help."""

    exit_code = 6

    def __init__(self, what: str, *, detail: str = "", next: str = "", region: str = "") -> None:
        super().__init__(what, detail=detail, next=next)
        self.region = region


class CloudError(TlvmError):
    exit_code = 7


class TransientError(CloudError):
    retryable = True


class ConnectionLost(TlvmError):
    exit_code = 8
    retryable = True


class RunFailed(TlvmError):
    exit_code = 9


class ConflictError(TlvmError):
    exit_code = 10


class DataError(TlvmError):
    exit_code = 11


class Interrupted(TlvmError):
    exit_code = 12
