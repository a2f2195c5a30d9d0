"""A fake bucket that falls silent at a request, so that its client can be killed there."""

from __future__ import annotations

import threading

from tests.fakes.gcs_buckets import Refused
from tests.fakes.gcs_server import GcsServer


class StoppingBucket(GcsServer):
    """frozen    set when `stop_at` has struck"""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = threading.Event()
        self._go_on = threading.Event()
        self._stop: tuple[int, bool] | None = None
        self._seen = 0
        self._counting = threading.Lock()
        self._last = threading.local()  # the request of this thread is the one, and has been performed

    def stop_at(self, number: int, *, performed: bool) -> None:
        """Freeze at the request of this number (from now, the first is 1): it and all later ones get no answer."""
        with self._counting:
            self._stop, self._seen = (number, performed), 0
            self._go_on.clear()
            self.frozen.clear()

    def resume(self) -> None:
        """What waits was not done; and serve again."""
        with self._counting:
            self._stop = None
        self._go_on.set()
        self.frozen.clear()

    def count(self, call: str) -> None:
        with self._counting:
            self._seen += 1
            stop, number = self._stop, self._seen
        if stop and (number > stop[0] or (number == stop[0] and not stop[1])):
            self._freeze()
            raise Refused(503, "backendError", "it was silent")
        self._last.performed = bool(stop) and number == (stop or (0,))[0]
        super().count(call)

    def weigh(self, call: str, *, received: int = 0, sent: int = 0) -> None:
        super().weigh(call, received=received, sent=sent)
        if sent and getattr(self._last, "performed", False):
            self._last.performed = False
            self._freeze()

    def _freeze(self) -> None:
        self.frozen.set()
        self._go_on.wait()
