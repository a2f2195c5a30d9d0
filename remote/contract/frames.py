"""How a growing file travels over one SSH channel: `follow` on the machine writes frames, the laptop reads them.

A frame is a line with a decimal length and then that many bytes of the file. Length 0 says "still here", so that the
laptop's own clock tells a quiet run from a frozen machine. The line "end STATE" closes the stream: no more will come.
"""

from __future__ import annotations

from collections.abc import Iterator

from .document import ContractError
from .run_status import FINAL

FRAME_BYTES_MAX = 256 * 1024
ALIVE = b"0\n"
ALIVE_S = 3.0  # the follower is never silent for longer
_HEAD_BYTES_MAX = 32
_ENDS = FINAL | {"INTERRUPTED"}  # INTERRUPTED: nobody supervises the run any more, and it has no final status


def frame(data: bytes) -> bytes:
    return b"%d\n" % len(data) + data


def end(state: str) -> bytes:
    return f"end {state}\n".encode()


class Unframer:
    """Gives the file's bytes back from the pieces in which the stream arrives.

    ended   the state that closed the stream, None while it is open
    """

    def __init__(self) -> None:
        self.ended: str | None = None
        self._buffer = b""
        self._missing = 0  # bytes of the frame that is being read

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The file's bytes in this piece, in order. ContractError when it is not such a stream."""
        self._buffer += piece
        while self._buffer and self.ended is None:
            if self._missing:
                data, self._buffer = self._buffer[: self._missing], self._buffer[self._missing :]
                self._missing -= len(data)
                yield data
                continue
            head, newline, rest = self._buffer.partition(b"\n")
            if not newline:
                if len(head) > _HEAD_BYTES_MAX:
                    raise ContractError(f"the stream from the machine: {head[:40]!r} is no length")
                return
            self._buffer = rest
            self._read_head(head)

    def _read_head(self, head: bytes) -> None:
        if head.startswith(b"end "):
            state = head[4:].decode("ascii", "replace")
            if state not in _ENDS:
                raise ContractError(f"the stream from the machine: unknown end {state[:40]!r}")
            self.ended = state
            return
        if not head.isdigit() or int(head) > FRAME_BYTES_MAX:
            raise ContractError(f"the stream from the machine: {head[:40]!r} is no length")
        self._missing = int(head)
