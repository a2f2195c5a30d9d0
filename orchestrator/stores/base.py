"""The contract of a store, as `remote.contract.store` says it, for this half.

Every error is one of `orchestrator.errors`: ConflictError where a generation does not hold, NotFoundError where there is
no such blob; the ones worth another try are TransientError.
"""

from __future__ import annotations

from remote.contract.store import FREE, Begun, Blob, Store, Way

__all__ = ["FREE", "Begun", "Blob", "Store", "Way"]
