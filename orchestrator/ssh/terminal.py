"""The user's own terminal, or their pipes, joined to a command on the machine: `tlvm ssh`."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import paramiko

_PIECE_BYTES = 64 * 1024
_LOOK_S = 10.0  # a silent session asks so often whether the machine still answers


def attach(
    channel: paramiko.Channel,
    command: str | None,
    stdin: int,
    stdout: int,
    stderr: int,
    look: Callable[[], None],
) -> None:
    """Start a shell or `command` in a fresh channel and join it to three file descriptors until it has ended.

    look   raises when the machine answers no more

    A shell gets a terminal of our size and kind when `stdin` is one; keys then go through as they are, Ctrl-C too. When
    whoever reads our output goes away (`| head`), the command is left.
    """
    with_terminal = command is None and os.isatty(stdin)
    if with_terminal:
        size = _size(stdout)
        channel.get_pty(os.environ.get("TERM", "xterm"), size.columns, size.lines)
    if command is None:
        channel.invoke_shell()
    else:
        channel.exec_command(command)
    with (
        _raw(stdin, with_terminal),
        _resizing(channel, stdout, with_terminal),
        _typing(channel, stdin),
        suppress(BrokenPipeError),
    ):
        _show(channel, stdout, stderr, look)


def _show(channel: paramiko.Channel, stdout: int, stderr: int, look: Callable[[], None]) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        while True:
            ended = bool(channel.eof_received or channel.closed)
            silent = not (channel.status_event.wait(_LOOK_S) if ended else selector.select(_LOOK_S))
            while channel.recv_ready():
                _write(stdout, channel.recv(_PIECE_BYTES))
            while channel.recv_stderr_ready():
                _write(stderr, channel.recv_stderr(_PIECE_BYTES))
            if ended and channel.exit_status_ready():
                return
            if silent:
                look()


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@contextmanager
def _typing(channel: paramiko.Channel, stdin: int) -> Iterator[None]:
    """Carries standard input, in a thread that ends with the context, without taking a key that is not meant for it."""
    stopped, stop = os.pipe()

    def carry() -> None:
        # neither epoll, which can't do plain files, nor poll, which can't do terminals on macOS
        with selectors.SelectSelector() as selector, suppress(OSError):
            selector.register(stdin, selectors.EVENT_READ)
            selector.register(stopped, selectors.EVENT_READ)
            while stopped not in [key.fileobj for key, _ in selector.select()]:
                data = os.read(stdin, _PIECE_BYTES)
                if not data:
                    channel.shutdown_write()
                    return
                channel.sendall(data)

    thread = threading.Thread(target=carry, name="tlvm-ssh-stdin", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.close(stop)
        channel.close()  # frees a thread that waits for room to send
        thread.join()
        os.close(stopped)


@contextmanager
def _raw(stdin: int, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    before = termios.tcgetattr(stdin)
    try:
        tty.setraw(stdin, termios.TCSADRAIN)  # what was typed ahead is meant for the machine
        yield
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


@contextmanager
def _resizing(channel: paramiko.Channel, stdout: int, wanted: bool) -> Iterator[None]:
    """Tells the machine when our window changes its size."""
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return

    def resize(*_: object) -> None:
        if not channel.closed:
            size = _size(stdout)
            channel.resize_pty(size.columns, size.lines)

    before = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _size(stdout: int) -> os.terminal_size:
    try:
        return os.get_terminal_size(stdout)
    except OSError:
        return shutil.get_terminal_size()
