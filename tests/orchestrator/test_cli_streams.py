"""The command line and what it writes to: Ctrl-C, readers that go away, disks that are full, secrets in what is logged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli import options
from orchestrator.cli.app import main
from orchestrator.cli.logs import redact
from orchestrator.errors import Interruption
from orchestrator.workflows.runs.launch import Detached
from tests.orchestrator.command_line import Answer, Process


@pytest.fixture
def process(tmp_path: Path) -> Process:
    return Process(tmp_path)


def test_a_machine_from_up_to_down(process: Process) -> None:
    try:
        up = process("up", "--json")
        assert up.code == 0, up.err
        assert json.loads(up.out)["machine"]["state"] == "running"
        assert process("ssh", "--", "sh", "-c", "echo out; echo err >&2; exit 5") == Answer(
            5, "out\n", "err\n"
        )
        asked = process("ssh", "--json", "--", "echo", "a  b")
        assert json.loads(asked.out)["stdout"] == "a  b\n"
        conflict = process("up", "--max-hours", "2")
        assert conflict.code == 10 and "max_hours" in conflict.err
        log = process("up", "-v").err
        assert "paramiko" in log and "local.get(" in log and "PRIVATE KEY" not in log
        interrupted(process)
    finally:
        down = process("down", "--force")
    assert down.code == 0 and "confirmed twice" in down.out
    assert process("down").code == 0


def interrupted(process: Process) -> None:
    """Ctrl-C is exit 130, without a traceback."""
    with process.start("ssh", "-L", "0:localhost:22") as forwarding:
        try:
            assert forwarding.stderr is not None
            while "open until" not in forwarding.stderr.readline():
                assert forwarding.poll() is None
            forwarding.send_signal(signal.SIGINT)
            _, err = forwarding.communicate(timeout=20)
        finally:
            forwarding.kill()
    assert forwarding.returncode == 130
    assert err.splitlines()[-1] == "Interrupted. The machine goes on: tlvm status shows it."
    assert "Traceback" not in err


def test_ctrl_c_while_the_program_is_loaded_is_one_line() -> None:
    script = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from orchestrator.cli import main
main(["status"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "Interrupted before anything was done.\n")


def test_a_question_that_is_left_is_130_not_a_bug(process: Process) -> None:
    person, terminal = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "init"], cwd=process.folder, env=process.environment,
        stdin=terminal, stdout=terminal, stderr=terminal,
    ) as asking:  # fmt: skip
        os.close(terminal)
        said = b""
        while b"Choose" not in said:
            said += os.read(person, 1000)
        os.write(person, b"\x04")  # Ctrl-D
        while b"Interrupted at the question." not in said:
            said += os.read(person, 1000)
        assert asking.wait(timeout=60) == 130
    os.close(person)
    assert not (process.folder / "tlvm.toml").exists()


def test_ctrl_c_with_json_is_one_object_that_says_what_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = "fixed-extractor-20260807-142530-k3qz"

    def run(common: options.Common) -> None:
        raise Detached(run_id, name="k3qz", state="RUNNING")

    def up(common: options.Common) -> None:
        raise Interruption("The machine m may exist", next="tlvm status shows it.")

    def gc(common: options.Common) -> None:
        raise KeyboardInterrupt

    def logs(common: options.Common) -> None:
        print('{"schema": 1, "command": "logs", "line": "one"}')
        raise KeyboardInterrupt

    commands = (*map(options.command(), (run, up, logs)), options.command(below="datasets")(gc))
    monkeypatch.setattr("orchestrator.cli.app.COMMANDS", commands)
    found = {}
    for command in commands:
        with pytest.raises(SystemExit) as exit:
            main([command.name, "--json"])
        shown = capsys.readouterr()
        assert exit.value.code == 130 and shown.err.count("Interrupted.") == 1
        found[command.name] = shown.out
    assert json.loads(found["run"]) == {
        "schema": 1,
        "command": "run",
        "run_id": run_id,
        "state": "RUNNING",
        "detached": True,
        "next": "tlvm attach k3qz comes back to it; tlvm pull k3qz fetches its result.",
    }
    error = json.loads(found["up"])["error"]
    assert (error["class"], error["exit_code"], error["what"]) == (
        "Interrupt",
        130,
        "The machine m may exist",
    )
    assert json.loads(found["gc"])["command"] == "datasets gc"
    assert [json.loads(line)["command"] for line in found["logs"].splitlines()] == ["logs", "logs"]


@pytest.mark.parametrize("words", ["status --json", "pull nothing --json"])
def test_a_reader_that_goes_away_is_no_error_message(process: Process, words: str) -> None:
    script = f"{sys.executable} -m orchestrator {words} 2>/dev/null | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=process.folder, env=process.environment, capture_output=True, text=True
    )
    assert done.stdout.strip() in {"0", "4", "141"}
    assert done.stderr == ""


@pytest.mark.parametrize("words", ["datasets", "datasets --json", "status", "--version", "--help"])
def test_a_reader_that_has_gone_ends_a_command_as_it_ends_others(process: Process, words: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *words.split()],
        cwd=process.folder,
        env=process.environment,
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    "words", ["datasets", "datasets --json", "--help", "--version", "pull nothing --json", "nonsense --json"]
)
def test_output_that_can_not_be_written_is_an_error_and_no_bug(process: Process, words: str) -> None:
    command = [sys.executable, "-m", "orchestrator", *words.split()]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command,
            cwd=process.folder,
            env=process.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
        deaf = subprocess.run(command, cwd=process.folder, env=process.environment, stdout=full, stderr=full)
    *_, what, detail, next = done.stderr.splitlines()
    assert (done.returncode, deaf.returncode) == (7, 7)
    assert what == "error   The output can't be written, or a file that the command needs"
    assert detail.endswith("No space left on device")
    assert next.startswith("next    Make room, or send the output elsewhere")
    assert "Traceback" not in done.stderr and "bug" not in done.stderr


@pytest.mark.parametrize("words", ["datasets", "--version"])
def test_output_that_is_closed_is_no_bug(process: Process, words: str) -> None:
    script = f"{sys.executable} -m orchestrator {words} >&- 2>&-"
    assert subprocess.run(["bash", "-c", script], cwd=process.folder, env=process.environment).returncode == 0


def test_input_that_is_closed_asks_nothing(process: Process) -> None:
    script = f"{sys.executable} -m orchestrator datasets gc <&-"
    done = subprocess.run(
        ["bash", "-c", script], cwd=process.folder, env=process.environment, capture_output=True, text=True
    )
    assert (done.returncode, "bug" in done.stderr) == (0, False)


def test_a_terminal_that_knows_little_still_gets_an_answer(process: Process) -> None:
    for words in ((), ("run", "--help"), ("status",)):
        answer = process(*words, PYTHONIOENCODING="ascii")
        assert "UnicodeEncodeError" not in answer.err


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer ya29.a0AfH6SMB", "a0AfH6SMB"),
        ("headers {'authorization': 'Bearer abc.def.ghi', 'x': 1}", "abc.def.ghi"),
        ("GET /upload?uploadType=resumable&upload_id=ABPtcPo-x HTTP/1.1", "ABPtcPo-x"),
        ("GET /o?X-Goog-Signature=deadbeef&alt=json", "deadbeef"),
        ('{"private_key": "MIIEvQ", "kind": 1}', "MIIEvQ"),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\n-----END OPENSSH PRIVATE KEY-----",
            "b3BlbnNzaC1r",
        ),
        ("token=eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln", "eyJpc3MiOiJ4In0"),
        ("refresh_token=1//0gabc&x=1", "1//0gabc"),
        ("password: hunter2", "hunter2"),
    ],
)
def test_secrets_are_removed_from_what_v_logs(text: str, secret: str) -> None:
    assert secret not in redact(text)
    assert "[removed]" in redact(text)


def test_what_is_no_secret_stays() -> None:
    text = 'http://127.0.0.1:1 "GET /storage/v1/b/trees/o?prefix=runs%2F&alt=json HTTP/1.1" 200'
    assert redact(text) == text
