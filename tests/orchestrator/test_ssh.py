"""The way to a machine: what it pins, what it notices, what it carries. The other end is a real local machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from orchestrator.errors import AuthError, CloudError, ConflictError, ConnectionLost, NotFoundError
from orchestrator.providers.base import MachineSpec, SshAddress
from orchestrator.providers.local import LocalProvider
from orchestrator.providers.local_folder import MachineFolder
from orchestrator.ssh import CommandFailed, Connection, connect, new_key
from remote.contract.run_spec import StoreRef

NAME = "tlvm-peer"


class Peer:
    """A machine of the provider `local`, and the process that answers for it."""

    def __init__(self, folder: Path) -> None:
        self.key_file = folder / "key"
        self.provider = LocalProvider(folder)
        spec = MachineSpec(
            name=NAME, owner="ana", project="trees", public_key=new_key(self.key_file),
            store=StoreRef(str(folder)), max_hours=1,
        )  # fmt: skip
        machine = self.provider.create(spec, self.provider.offers(spec)[0])
        assert machine.ssh is not None
        self.address: SshAddress = machine.ssh
        self.host_keys = self.provider.host_keys(NAME)
        server = MachineFolder(folder / "machines" / NAME).server()
        assert server is not None
        self.pid = server.pid

    def connect(
        self,
        *,
        address: SshAddress | None = None,
        timeout_s: float = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> Connection:
        return connect(
            address or self.address,
            host_keys=self.host_keys,
            key_file=self.key_file,
            timeout_s=timeout_s,
            clock=clock,
        )

    @contextmanager
    def frozen(self) -> Iterator[None]:
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    made = Peer(tmp_path_factory.mktemp("peer"))
    yield made
    made.provider.delete(NAME)


@pytest.fixture(scope="module")
def connection(peer: Peer) -> Iterator[Connection]:
    with peer.connect() as made:
        yield made


def test_nothing_heavy_is_loaded_before_the_first_connection() -> None:
    program = (
        "import sys, orchestrator.ssh, orchestrator.providers.local\n"
        "heavy = {'fabric', 'paramiko', 'invoke', 'asyncssh', 'cryptography'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_new_key_is_private_and_never_written_over(tmp_path: Path) -> None:
    line = new_key(tmp_path / "key", comment="ana")
    assert line.startswith("ssh-ed25519 AAAA")
    assert line.endswith(" ana")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    before = (tmp_path / "key").read_bytes()
    with pytest.raises(FileExistsError):
        new_key(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_changed_host_key_is_an_error_and_never_re_pinned(peer: Peer, tmp_path: Path) -> None:
    other = new_key(tmp_path / "other")
    for _ in range(2):
        with pytest.raises(AuthError, match="never re-pinned"):
            connect(peer.address, host_keys=[other], key_file=peer.key_file)


def test_a_host_key_of_another_kind_than_the_pinned_is_an_error(peer: Peer) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = generate_private_key(SECP256R1()).public_key()
    line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    with pytest.raises(AuthError, match="never re-pinned"):
        connect(peer.address, host_keys=[line], key_file=peer.key_file)


def test_no_host_key_no_connection(peer: Peer) -> None:
    with pytest.raises(ConnectionLost, match="not known yet"):
        connect(peer.address, host_keys=[], key_file=peer.key_file)
    with pytest.raises(AuthError, match="can't be read"):
        connect(peer.address, host_keys=["ssh-ed25519 nonsense"], key_file=peer.key_file)


def test_a_missing_or_foreign_key_and_another_user_are_refused(peer: Peer, tmp_path: Path) -> None:
    with pytest.raises(AuthError, match="missing") as missing:
        connect(peer.address, host_keys=peer.host_keys, key_file=tmp_path / "none")
    assert "tlvm authorize" in missing.value.next
    new_key(tmp_path / "foreign")
    with pytest.raises(AuthError, match="refused") as caught:
        connect(peer.address, host_keys=peer.host_keys, key_file=tmp_path / "foreign")
    assert "tlvm authorize lets this computer in" in caught.value.next
    with pytest.raises(AuthError, match="refused"):
        peer.connect(address=replace(peer.address, user="root"))


def test_the_users_own_ssh_configuration_plays_no_part(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(
        "Host *\n User root\n Port 1\n ProxyCommand false\n IdentityFile none\n"
    )
    (tmp_path / ".fabric.yml").write_text("port: 1\nuser: root\ngateway: false\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with peer.connect() as made:
        assert made.check("echo in") == b"in\n"
    assert sorted(path.name for path in (tmp_path / ".ssh").iterdir()) == ["config"]


def test_where_nothing_answers(peer: Peer, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        deaf = replace(peer.address, port=listener.getsockname()[1])
        with pytest.raises(ConnectionLost, match="No SSH connection"):
            peer.connect(address=deaf)
        listener.listen()  # connections are made, and nobody says anything
        started = time.monotonic()
        with pytest.raises(ConnectionLost, match="No SSH connection"):
            peer.connect(address=deaf, timeout_s=0.3)
        assert time.monotonic() - started < 12  # paramiko itself waits for 15
    assert capfd.readouterr().err == ""


def test_a_failing_command_says_why(connection: Connection) -> None:
    with pytest.raises(CommandFailed, match="no space here") as error:
        connection.check("echo no space here >&2; exit 3")
    assert error.value.exit_status == 3
    assert isinstance(error.value, CloudError)
    pieces = connection.stream("echo out; echo err >&2; exit 4")
    assert next(pieces) == b"out\n"
    with pytest.raises(CommandFailed) as error:
        next(pieces)
    assert (error.value.exit_status, error.value.stderr) == (4, b"err\n")


def test_a_command_ended_by_a_signal_is_not_a_lost_connection(connection: Connection) -> None:
    assert connection.run("kill -9 $$").exit_code in (137, 255)


def test_input_that_nobody_reads_and_input_longer_than_every_buffer(connection: Connection) -> None:
    assert connection.run("exit 0", input=b"x" * 5_000_000).exit_code == 0
    long = os.urandom(1_000_000) * 30
    assert connection.check("cat", input=long) == long


def test_input_that_comes_about_piece_by_piece(connection: Connection, tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        for number in range(3):
            yield f"{tmp_path}/{number}\n".encode()
            while not (tmp_path / str(number)).exists():  # the next one when this one was read
                time.sleep(0.01)

    command = 'while read -r path; do touch "$path"; done; echo over'
    assert connection.run(command, input=pieces()).stdout == b"over\n"


def test_a_command_that_takes_too_long(connection: Connection) -> None:
    with pytest.raises(CloudError, match=r"within 0\.3 s"):
        connection.run("sleep 30", timeout_s=0.3)
    assert connection.check("echo still") == b"still\n"


def test_a_stream_that_is_left_early_leaves_the_connection_whole(connection: Connection) -> None:
    stream = connection.stream("yes")
    assert next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert connection.check("echo still") == b"still\n"


def test_a_connection_is_closed_also_when_ctrl_c_came_while_a_channel_was_made(peer: Peer) -> None:
    connection = peer.connect()
    transport = connection._client.client.get_transport()
    assert transport is not None
    transport._channels.put(7, paramiko.Channel(7))  # listed, and not told its transport yet
    connection.close()
    with pytest.raises(ConnectionLost):
        connection.run("true")


def test_a_silent_command_on_a_machine_that_answers_may_be_silent(peer: Peer) -> None:
    ticks = iter(range(0, 10**9, 1000))  # by this clock, every look is a quarter of an hour after the last
    with peer.connect(clock=lambda: next(ticks)) as made:
        assert b"".join(made.stream("sleep 0.5; echo done", idle_timeout_s=20)) == b"done\n"


def test_a_frozen_peer_is_noticed_by_our_own_clock(peer: Peer) -> None:
    with peer.connect(timeout_s=2) as made:
        stream = made.stream("echo begun; sleep 60", idle_timeout_s=1)
        assert next(stream) == b"begun\n"
        with peer.frozen():
            started = time.monotonic()
            with pytest.raises(ConnectionLost, match="does not answer"):
                next(stream)
            with pytest.raises(ConnectionLost):
                made.run("true")
            with pytest.raises(ConnectionLost):
                peer.connect(timeout_s=0.5)
            made.close()
            assert time.monotonic() - started < 60  # TCP takes a quarter of an hour
    with peer.connect() as made:
        assert made.check("echo back") == b"back\n"


def test_a_cut_line_is_a_lost_connection_and_no_exit_code(peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    with _proxy(peer.address) as (address, cut), peer.connect(address=address) as made:
        stream = made.stream("echo begun; sleep 60", idle_timeout_s=20)
        assert next(stream) == b"begun\n"
        cut()
        with pytest.raises(ConnectionLost):
            next(stream)
        for verb in (
            lambda: made.run("true"),
            lambda: made.put(tmp_path / "file", "file"),
            lambda: made.get("file", tmp_path / "back"),
        ):
            with pytest.raises(ConnectionLost):
                verb()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_files_appear_whole_or_not_at_all(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"new")
    connection.check("mkdir -p box && echo old > box/file")
    connection.put(tmp_path / "file", "box/file")
    assert connection.check("cat box/file; ls -A box") == b"newfile\n"
    (tmp_path / "back").write_bytes(b"old")
    connection.get("box/file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"new"
    with pytest.raises(NotFoundError, match="nowhere"):
        connection.put(tmp_path / "file", "nowhere/file")
    with pytest.raises(CloudError, match="box"):
        connection.put(tmp_path / "file", "box")  # a folder stands there
    with pytest.raises(FileNotFoundError):
        connection.put(tmp_path / "missing", "box/file")
    assert connection.check("cat box/file; ls -A | grep part; ls -A box") == b"newfile\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "file"]


def test_a_forwarded_port(connection: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:
        threading.Thread(target=_echo_upper, args=(service, 3), daemon=True).start()
        with connection.forward(0, "127.0.0.1", service.getsockname()[1]) as port:
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", port), timeout=10) as visitor:
                    visitor.sendall(b"hello" * 100_000)
                    visitor.shutdown(socket.SHUT_WR)
                    assert _all_of(visitor) == b"HELLO" * 100_000
            with pytest.raises(ConflictError, match=str(port)), connection.forward(port, "127.0.0.1", 1):
                pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)


def test_a_forwarded_port_leads_nowhere_but_to_the_machine_itself(connection: Connection) -> None:
    with (
        connection.forward(0, "203.0.113.7", 80) as port,
        socket.create_connection(("127.0.0.1", port)) as visitor,
    ):
        visitor.settimeout(10)
        assert _all_of(visitor) == b""


def test_a_command_with_our_own_pipes(connection: Connection) -> None:
    with _pipes() as (stdin, stdout, stderr):
        os.write(stdin[1], b"hello")
        _let_go(stdin[1])
        code = connection.interactive(
            "tr a-z A-Z; echo oops >&2; exit 9", stdin=stdin[0], stdout=stdout[1], stderr=stderr[1]
        )
        assert (code, os.read(stdout[0], 100), os.read(stderr[0], 100)) == (9, b"HELLO", b"oops\n")


def test_a_command_that_ends_before_its_input(connection: Connection) -> None:
    with _pipes() as (stdin, stdout, stderr):
        assert connection.interactive("exit 2", stdin=stdin[0], stdout=stdout[1], stderr=stderr[1]) == 2
        os.write(stdin[1], b"for somebody else")
        assert os.read(stdin[0], 100) == b"for somebody else"


def test_a_command_whose_reader_goes_away(connection: Connection) -> None:
    with _pipes() as (stdin, stdout, stderr):
        _let_go(stdout[0])
        assert connection.interactive("yes", stdin=stdin[0], stdout=stdout[1], stderr=stderr[1]) != 0
    assert connection.check("echo still") == b"still\n"


def test_a_shell_on_a_terminal(connection: Connection) -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (33, 99))
    before = termios.tcgetattr(theirs)
    shown = bytearray()
    finished = threading.Event()

    def user() -> None:
        shown.extend(os.read(ours, 1000))  # the prompt
        os.write(ours, b"stty size; tty; echo over-$((40+2)); exit 5\n")
        while not finished.is_set():
            shown.extend(os.read(ours, 1000))

    thread = threading.Thread(target=user, daemon=True)
    thread.start()
    try:
        assert connection.interactive(None, stdin=theirs, stdout=theirs, stderr=theirs) == 5
        assert termios.tcgetattr(theirs) == before
    finally:
        finished.set()
        os.write(theirs, b"\n")
        thread.join(timeout=10)
        os.close(ours)
        os.close(theirs)
    assert b"33 99" in shown
    assert b"/dev/" in shown
    assert b"over-42" in shown


def test_a_killed_server_is_a_lost_connection(tmp_path: Path) -> None:
    peer = Peer(tmp_path)
    try:
        with peer.connect() as made:
            stream = made.stream("echo begun; exec sleep 60", idle_timeout_s=20)
            assert next(stream) == b"begun\n"
            os.kill(peer.pid, signal.SIGKILL)
            with pytest.raises(ConnectionLost):
                next(stream)
        with pytest.raises(ConnectionLost):
            peer.connect()
    finally:
        peer.provider.delete(NAME)


@contextmanager
def _proxy(to: SshAddress) -> Iterator[tuple[SshAddress, Callable[[], None]]]:
    """An address that leads to another, and what cuts the line."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        ends: list[socket.socket] = []

        def serve() -> None:
            near = stack.enter_context(listener.accept()[0])
            far = stack.enter_context(socket.create_connection((to.host, to.port)))
            ends.extend((near, far))
            threading.Thread(target=_carry, args=(near, far), daemon=True).start()
            _carry(far, near)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()

        def cut() -> None:
            for end in ends:
                end.shutdown(socket.SHUT_RDWR)

        yield replace(to, port=listener.getsockname()[1]), cut
        thread.join(timeout=10)


def _carry(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        return


def _echo_upper(service: socket.socket, times: int) -> None:
    for _ in range(times):
        with service.accept()[0] as visitor:
            visitor.sendall(_all_of(visitor).upper())


def _all_of(visitor: socket.socket) -> bytes:
    data = bytearray()
    while piece := visitor.recv(65536):
        data += piece
    return bytes(data)


@contextmanager
def _pipes() -> Iterator[tuple[tuple[int, int], tuple[int, int], tuple[int, int]]]:
    pairs = (os.pipe(), os.pipe(), os.pipe())
    try:
        yield pairs
    finally:
        for descriptor in (end for pair in pairs for end in pair):
            os.close(descriptor)


def _let_go(descriptor: int) -> None:
    """Close this end of a pipe and keep its number, which another thread would get and `_pipes` close once more."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
