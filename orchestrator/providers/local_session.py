"""One command or shell on a local machine: started in a session of its own, joined to its SSH channel by hand.

By hand, because asyncssh's `redirect` breaks the connection on more than a megabyte of output.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import pty
import pwd
import shlex
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import asyncssh

from .local_folder import USER, Description
from .local_processes import ID_VARIABLE

_PIECE_BYTES = 64 * 1024
_INHERITED = (
    "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CONFIG",
)  # fmt: skip
_LOGIN = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[2:])"


def write_shims(home: Path) -> None:
    """`python3` on a machine is the Python that has what tlvm needs. A link would lose its virtual environment."""
    folder = home / ".bin"
    folder.mkdir(exist_ok=True)
    for name in ("python3", "python"):
        beside = folder / f".{name}.part"
        beside.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        beside.chmod(0o755)
        beside.replace(folder / name)


async def serve_session(
    process: asyncssh.SSHServerProcess[bytes], home: Path, description: Description
) -> None:
    """Runs commands with /bin/sh, which all that tlvm sends is written for; a shell is the user's own."""
    shell = pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
    environment = _environment(os.environ, home, description, shell)
    command = ["/bin/sh", "-c", process.command] if process.command is not None else [shell, "-l"]
    try:
        if process.term_type is not None:
            code = await _on_a_terminal(process, command, environment | {"TERM": process.term_type})
        else:
            code = await _on_pipes(process, command, environment)
    except OSError as error:  # no more processes, descriptors or terminals
        process.stderr.write(f"{error}\n".encode())
        code = 126
    except Exception:  # asyncssh would end the whole connection, and say nothing
        logging.exception("a session of %s failed", description.name)
        code = 126
    if not process.is_closing():  # else the client went first, and asyncssh would end its whole connection
        process.exit(code)


def _environment(own: Mapping[str, str], home: Path, description: Description, shell: str) -> dict[str, str]:
    """A login's environment: little of the one that `tlvm up` happened to run in."""
    path = f"{home / '.bin'}:{Path(sys.executable).parent}:{own.get('PATH', os.defpath)}"
    environment = {name: own[name] for name in _INHERITED if name in own}
    google = Path(own.get("HOME", "/")) / ".config" / "gcloud"
    if google.is_dir():  # HOME is another one there, and this user's login is found below it
        environment.setdefault("CLOUDSDK_CONFIG", str(google))
    if description.store.credentials_file:
        environment["GOOGLE_APPLICATION_CREDENTIALS"] = description.store.credentials_file
    return environment | {
        "HOME": str(home),
        "USER": USER,
        "LOGNAME": USER,
        "SHELL": shell,
        "PATH": path,
        "TLVM_MACHINE": description.name,
        ID_VARIABLE: description.id,
    }


async def _on_pipes(
    process: asyncssh.SSHServerProcess[bytes], command: list[str], environment: dict[str, str]
) -> int:
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=environment["HOME"],
        start_new_session=True,
        bufsize=0,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    typing = asyncio.create_task(_type(process, child.stdin, child.pid))
    return await _until_over(
        process,
        child,
        typing,
        [_show(child.stdout, process.stdout), _show(child.stderr, process.stderr)],
    )


async def _on_a_terminal(
    process: asyncssh.SSHServerProcess[bytes], command: list[str], environment: dict[str, str]
) -> int:
    ours, theirs = pty.openpty()
    try:
        _resize(ours, process.term_size[0], process.term_size[1])
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LOGIN, command[0], *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            cwd=environment["HOME"],
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    reading = os.fdopen(ours, "rb", buffering=0)
    writing = os.fdopen(os.dup(ours), "wb", buffering=0)
    typing = asyncio.create_task(_type(process, writing, child.pid, is_terminal=True))
    return await _until_over(process, child, typing, [_show(reading, process.stdout)])


async def _until_over(
    process: asyncssh.SSHServerProcess[bytes],
    child: subprocess.Popen[bytes],
    typing: asyncio.Task[None],
    shows: list[Coroutine[None, None, None]],
) -> int:
    """The exit code, after the last of the output; 128 + n for a signal.

    When the client goes first, the command hears SIGHUP, as on a terminal: a follower must not follow for ever.
    """
    closed = asyncio.create_task(process.wait_closed())
    ended = _end_of(child)
    over = asyncio.create_task(_all(ended, shows))
    try:
        await asyncio.wait([closed, over], return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGHUP)
            return 0  # which nobody hears
        if over.done() and (error := over.exception()) is not None and not closed.done():
            raise error
    finally:
        for task in (closed, over, typing):
            task.cancel()
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _end_of(child: subprocess.Popen[bytes]) -> asyncio.Future[None]:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ended.done():
            ended.set_result(None)

    def wait() -> None:
        child.wait()
        with suppress(RuntimeError):  # the server has ended before it
            loop.call_soon_threadsafe(tell)

    threading.Thread(target=wait, daemon=True).start()
    return ended


async def _all(ended: asyncio.Future[None], shows: list[Coroutine[None, None, None]]) -> None:
    await asyncio.gather(ended, *shows)


async def _show(source: IO[bytes], target: asyncssh.SSHWriter[bytes]) -> None:
    reader = asyncio.StreamReader(limit=_PIECE_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), source
    )
    try:
        while piece := await reader.read(_PIECE_BYTES):
            target.write(piece)
            await target.drain()
    except OSError as error:
        if error.errno != errno.EIO:  # Linux's way to say that nobody has the terminal open any more
            raise
    finally:
        transport.close()


async def _type(
    process: asyncssh.SSHServerProcess[bytes], sink: IO[bytes], group: int, is_terminal: bool = False
) -> None:
    """Carries the client's input, and what a client can do besides: resize the terminal, send a signal."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), sink
    )
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    try:
        while True:
            try:
                piece = await process.stdin.read(_PIECE_BYTES)
            except asyncssh.TerminalSizeChanged as size:
                if is_terminal:
                    _resize(sink.fileno(), size.width, size.height)
                continue
            except asyncssh.SignalReceived as request:
                with suppress(ProcessLookupError, KeyError):
                    os.killpg(group, signal.Signals[f"SIG{request.signal}"])
                continue
            except asyncssh.BreakReceived:
                continue
            if not piece and not is_terminal:
                return
            writer.write(piece or b"\x04")
            await writer.drain()
            if not piece:
                return
    except (OSError, asyncssh.Error):  # the command wants no more, or the client is gone
        return
    finally:
        transport.close()


def _resize(terminal: int, columns: int, lines: int) -> None:
    termios.tcsetwinsize(terminal, (lines or 24, columns or 80))
