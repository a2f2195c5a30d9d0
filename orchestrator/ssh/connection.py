"""One SSH connection to one machine: commands, streams, files, forwarded ports, a terminal."""

from __future__ import annotations

import math
import secrets
import selectors
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Self

from orchestrator.errors import CloudError, NotFoundError
from orchestrator.providers.base import SshAddress

from . import border, forwarding, terminal

if TYPE_CHECKING:
    import fabric
    import paramiko

SILENCE_S = 20.0  # a peer that answers nothing for so long is lost
OUTPUT_BYTES_MAX = 512 * 1024 * 1024  # of one `run`; what is longer belongs into `stream`
_PIECE_BYTES = 256 * 1024
_SLICE_S = 0.2  # how often a wait looks at the clock
_WINDOW_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class _Piece:
    is_stderr: bool
    data: bytes


@dataclass(frozen=True)
class Output:
    exit_code: int  # 255 when a signal ended the command
    stdout: bytes
    stderr: bytes


class CommandFailed(CloudError):
    """A command on the machine ended with another exit code than 0."""

    def __init__(self, command: str, exit_code: int, stderr: bytes) -> None:
        super().__init__(
            f"A command on the machine ended with exit code {exit_code}: {command[:200]}",
            detail=stderr[-2000:].decode(errors="replace").strip(),
        )
        self.exit_status = exit_code
        self.stderr = stderr


class Connection:
    """Made by `login.connect`; close it, or use it in `with`. One thread at a time."""

    def __init__(self, address: SshAddress, client: fabric.Connection, clock: Callable[[], float]) -> None:
        self.address = address
        self._client = client
        self._clock = clock

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        client = self._client.client
        transport = client.get_transport()
        try:
            client.close()
        except AttributeError:
            # A channel that a Ctrl-C left half made knows no transport, and paramiko stumbles over it.
            if transport is not None:
                transport.sock.close()

    def run(
        self, command: str, *, input: bytes | Iterable[bytes] | None = None, timeout_s: float = 60
    ) -> Output:
        """Run a command in the user's shell on the machine and wait for its end, whatever its exit code.

        input           its standard input, whole or piece by piece as it comes about; without, that is empty
        timeout_s       CloudError when it takes longer
        ConnectionLost  when the connection is cut, or the machine answers nothing for SILENCE_S

        A command that leaves children behind must give them other outputs than its own, or this waits for them.
        """
        outputs: tuple[list[bytes], list[bytes]] = ([], [])
        started, size = self._clock(), 0
        with self._channel() as channel:
            channel.exec_command(command)
            _send(channel, [input] if isinstance(input, bytes) else input or [])
            for piece in self._pieces(channel, SILENCE_S):
                if piece is not None:
                    outputs[piece.is_stderr].append(piece.data)
                    size += len(piece.data)
                    if size > OUTPUT_BYTES_MAX:
                        raise CloudError(
                            f"A command wrote more than {OUTPUT_BYTES_MAX} bytes: {command[:200]}"
                        )
                if self._clock() - started > timeout_s:
                    raise CloudError(
                        f"A command on the machine did not end within {timeout_s:g} s: {command[:200]}"
                    )
            return Output(self._exit_code(channel), b"".join(outputs[0]), b"".join(outputs[1]))

    def check(self, command: str, *, input: bytes | None = None, timeout_s: float = 60) -> bytes:
        """The same, for a command that has to succeed: its standard output, or CommandFailed with the end of stderr."""
        output = self.run(command, input=input, timeout_s=timeout_s)
        if output.exit_code != 0:
            raise CommandFailed(command, output.exit_code, output.stderr)
        return output.stdout

    def stream(
        self, command: str, *, idle_timeout_s: float = SILENCE_S, speaks_within_s: float = math.inf
    ) -> Iterator[bytes]:
        """What a command writes to its standard output, as it comes, of any length.

        idle_timeout_s   ConnectionLost when the machine answers nothing for so long
        speaks_within_s  the same when the command is silent for so long although the machine answers: one that promises
                         to speak may be frozen
        CommandFailed    after the last piece, when the exit code is not 0
        """
        stderr = bytearray()
        spoke = self._clock()
        with self._channel() as channel:
            channel.exec_command(command)
            channel.shutdown_write()
            for piece in self._pieces(channel, idle_timeout_s):
                if piece is None:
                    if self._clock() - spoke > speaks_within_s:
                        raise border.lost(self.address, "The command there is silent: it may be frozen.")
                    continue
                spoke = self._clock()
                if piece.is_stderr:
                    stderr += piece.data
                    del stderr[:-65536]
                else:
                    yield piece.data
            exit_code = self._exit_code(channel)
        if exit_code != 0:
            raise CommandFailed(command, exit_code, bytes(stderr))

    def put(self, path: Path, remote_path: str) -> None:
        """Copy a file to the machine: it appears there (or is replaced) whole, or not at all.

        remote_path   relative to the home of the machine, or absolute; its folder exists
        """
        target = PurePosixPath(remote_path)
        beside = str(target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part"))
        with path.open("rb") as file, self._sftp() as sftp:
            try:
                sftp.putfo(file, beside)  # paramiko compares the sizes at the end
                sftp.posix_rename(beside, remote_path)
            except FileNotFoundError:
                raise NotFoundError(f"There is no folder on the machine for {remote_path}") from None
            except OSError as error:
                if border.means_lost(error):
                    raise
                with suppress(FileNotFoundError):
                    sftp.remove(beside)
                raise CloudError(
                    f"{path.name} could not be written to {remote_path} on the machine", detail=str(error)
                ) from None

    def get(self, remote_path: str, path: Path) -> None:
        """Copy a file from the machine: `path` appears (or is replaced) whole, or not at all."""
        beside = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")
        with self._sftp() as sftp:
            try:
                sftp.get(remote_path, str(beside))  # paramiko compares the sizes at the end
                beside.replace(path)
            except FileNotFoundError:
                raise NotFoundError(f"There is no file {remote_path} on the machine") from None
            except OSError as error:
                if border.means_lost(error):
                    raise
                raise CloudError(f"{remote_path} could not be fetched", detail=str(error)) from None
            finally:
                beside.unlink(missing_ok=True)

    def forward(self, local_port: int, host: str, port: int) -> AbstractContextManager[int]:
        """Within the context, `local_port` of this computer's 127.0.0.1 leads to host:port as the machine sees it.

        local_port      0 takes a free one; the context gives the port
        ConflictError   when the port is taken
        """
        return forwarding.forward(self._transport(), local_port, host, port)

    def interactive(self, command: str | None, *, stdin: int = 0, stdout: int = 1, stderr: int = 2) -> int:
        """A shell on the machine (with a terminal when `stdin` is one), or a command with our own stdio; its exit code.

        stdin, stdout, stderr   file descriptors
        """
        with self._channel() as channel:
            terminal.attach(channel, command, stdin, stdout, stderr, lambda: self._look(SILENCE_S))
            return self._exit_code(channel)

    def _transport(self) -> paramiko.Transport:
        transport: paramiko.Transport | None = self._client.transport
        if transport is None or not transport.is_active():
            raise border.lost(self.address, "It is closed.")
        return transport

    @contextmanager
    def _channel(self) -> Iterator[paramiko.Channel]:
        with border.connected(self.address):
            channel = self._transport().open_session(window_size=_WINDOW_BYTES)
        try:
            with border.connected(self.address):
                yield channel
        finally:
            channel.close()

    @contextmanager
    def _sftp(self) -> Iterator[paramiko.SFTPClient]:
        with border.connected(self.address):
            sftp = self._transport().open_sftp_client()
            if sftp is None:
                raise border.lost(self.address, "No SFTP session was opened.")
            channel = sftp.get_channel()
            if channel is not None:
                channel.settimeout(SILENCE_S)
            try:
                yield sftp
            finally:
                sftp.close()

    def _pieces(self, channel: paramiko.Channel, silence_s: float) -> Iterator[_Piece | None]:
        """What comes from a command until its end; None now and then while nothing comes."""
        heard = self._clock()
        while True:
            # looked at first, because what came before the end is in the buffers then
            ended = bool(channel.eof_received or channel.closed)
            came = False
            while channel.recv_ready():
                came = True
                yield _Piece(False, channel.recv(_PIECE_BYTES))
            while channel.recv_stderr_ready():
                came = True
                yield _Piece(True, channel.recv_stderr(_PIECE_BYTES))
            if ended and channel.exit_status_ready():
                return
            if came:
                heard = self._clock()
                continue
            self._wait(channel, ended)
            yield None
            if self._clock() - heard >= silence_s / 2:
                self._look(silence_s / 2)
                heard = self._clock()

    @staticmethod
    def _wait(channel: paramiko.Channel, ended: bool) -> None:
        if ended:  # only the exit status is still to come
            channel.status_event.wait(_SLICE_S)
        else:
            with selectors.DefaultSelector() as selector:
                selector.register(channel, selectors.EVENT_READ)
                selector.select(_SLICE_S)

    def _look(self, timeout_s: float) -> None:
        """Ask the machine for an answer. Keepalives don't tell: paramiko never waits for theirs."""
        import paramiko

        try:
            self._transport().open_session(timeout=timeout_s).close()
        except paramiko.ChannelException:
            return  # refused, which is an answer too
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise border.lost(self.address, f"The machine does not answer ({error}).") from None

    def _exit_code(self, channel: paramiko.Channel) -> int:
        code = channel.recv_exit_status()
        if code == -1:  # no status came: the connection was lost, or a signal ended the command
            self._look(SILENCE_S / 2)
            return 255
        return code


def _send(channel: paramiko.Channel, pieces: Iterable[bytes]) -> None:
    """Standard input, from a thread: a peer may want its output read before it reads on."""

    def send() -> None:
        # The command ended without reading all of it, or the connection did: its exit code tells.
        with suppress(OSError, EOFError):
            for data in pieces:
                for start in range(
                    0, len(data), _PIECE_BYTES
                ):  # paramiko copies all that is left for each packet
                    channel.sendall(data[start : start + _PIECE_BYTES])
            channel.shutdown_write()

    threading.Thread(target=send, name="tlvm-ssh-stdin", daemon=True).start()
