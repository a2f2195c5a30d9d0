"""The command line: help, exit codes, streams, completion; what is loaded only when it is needed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator import __version__, errors
from orchestrator.cli import options
from orchestrator.cli.app import BELOW, COMMANDS, main
from orchestrator.cli.logs import redact
from orchestrator.errors import Interruption, TlvmError
from orchestrator.workflows.runs.launch import Detached

NAMES = [command.name for command in COMMANDS]
HEAVY = {
    "torch",
    "google",
    "fabric",
    "paramiko",
    "docker",
    "asyncssh",
    "rich",
    "numpy",
    "PIL",
    "platformdirs",
}


@dataclass(frozen=True)
class Answer:
    code: object
    out: str
    err: str


Tlvm = Callable[..., Answer]


class Process:
    """`tlvm` in a process of its own, in an empty folder."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "here"
        self.folder.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TLVM_")}
        root = str(Path(__file__).parents[2])
        self.environment = kept | {"TLVM_DATA_DIR": str(home / "data"), "PYTHONPATH": root}

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *words], cwd=self.folder, env=self.environment | more,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self, *words: str, **more: str) -> Answer:
        with self.start(*words, **more) as process:
            out, err = process.communicate(timeout=60)
        return Answer(process.returncode, out, err)


@pytest.fixture
def process(tmp_path: Path) -> Process:
    return Process(tmp_path)


@pytest.fixture
def tlvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tlvm:
    """`tlvm` in this process, in an empty folder."""
    for name in [name for name in os.environ if name.startswith("TLVM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TLVM_DATA_DIR", str(tmp_path / "data"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*words: str) -> Answer:
        with pytest.raises(SystemExit) as exit:
            main(words)
        shown = capsys.readouterr()
        return Answer(exit.value.code, shown.out, shown.err)

    return run


@pytest.fixture(scope="module")
def helps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The help of every command, and what was loaded for each, from one process."""
    script = """
import contextlib, io, json, sys
from orchestrator.cli.app import COMMANDS, main
pages = {}
for words in [[], *[[command.name] for command in COMMANDS]]:
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        main([*words, "--help"])
    pages[" ".join(words)] = text.getvalue()
    pages["loaded"] = " ".join(sorted({name.split(".")[0] for name in sys.modules}))
    pages.setdefault("loaded first", pages["loaded"])
print(json.dumps(pages))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[2])  # fmt: skip
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_help_loads_nothing_heavy(helps: dict[str, str]) -> None:
    assert HEAVY & set(helps["loaded"].split()) == set()
    assert "pydantic" not in helps["loaded first"].split()  # typer itself needs it for the help of a command


def test_a_run_loads_nothing_that_decodes_images_or_talks_before_it_must() -> None:
    script = "import sys, orchestrator.workflows.runs.run, orchestrator.workflows.runs.overview, orchestrator.render.runs; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[2])  # fmt: skip
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert {"numpy", "PIL", "requests", "torch", "google", "docker", "asyncssh", "fabric"} & loaded == set()


def test_the_commands_are_those_of_the_design(helps: dict[str, str]) -> None:
    for name in [
        "init",
        "up",
        "status",
        "upload",
        "datasets",
        "run",
        "runs",
        "logs",
        "pull",
        "predict",
        "evaluate",
        "compare",
        "weights",
        "ssh",
        "down",
        "doctor",
        "demo",
    ]:
        assert re.search(rf"^  {name} ", helps[""], flags=re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_every_help_has_the_common_options_and_ends_with_exit_codes(helps: dict[str, str], name: str) -> None:
    page = helps[name]
    for option in ("--machine", "--dataset", "--provider", "--yes", "--json", "--verbose"):
        assert option in page
    _, found, codes = page.partition("Exit codes:\n")
    assert found and not re.search(r"\[\[|\.\.\.[\]}]", page)  # [RUN] and [NAME]..., not [[RUN]]
    lines = [line.split(maxsplit=1) for line in codes.strip().splitlines()]
    numbers = [int(number) for number, _ in lines]
    assert numbers[0] == 0 and numbers[-1] == 130 and numbers == sorted(numbers) and {1, 2} < set(numbers)


def test_the_short_descriptions_are_not_cut(helps: dict[str, str]) -> None:
    assert "..." not in helps[""].partition("Commands:")[2].partition("The way:")[0]


def test_every_error_class_is_described() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TlvmError)]
    described = options.descriptions()
    assert {kind.__name__ for kind in kinds if kind is not TlvmError} == set(described) - {"TlvmError"}


def test_version(tlvm: Tlvm) -> None:
    assert tlvm("--version").out == f"tlvm {__version__}\n"


def test_an_error_is_three_parts_on_stderr_and_an_object_with_json(tlvm: Tlvm) -> None:
    plain = tlvm("pull", "nothing")
    assert (plain.code, plain.out) == (4, "")
    assert plain.err.startswith("error   There is no run 'nothing'")
    assert "\nnext    " in plain.err
    asked = tlvm("pull", "nothing", "--json")
    found = json.loads(asked.out)
    assert (asked.code, found["schema"], found["command"]) == (4, 1, "pull")
    assert found["error"]["class"] == "NotFoundError"
    assert found["error"]["exit_code"] == 4
    assert set(found["error"]) == {"class", "exit_code", "what", "detail", "next"}


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("runs rm nothing", "runs rm"),
        ("runs tag nothing good", "runs tag"),
        ("datasets rm nothing", "datasets rm"),
        ("runs --tag bad --machine nothing", "runs"),
        ("runs tag", "runs tag"),  # which typer refuses
        ("nothing", "nothing"),
    ],
)
def test_an_error_names_the_command_as_its_result_does(tlvm: Tlvm, words: str, command: str) -> None:
    assert json.loads(tlvm(*words.split(), "--json").out)["command"] == command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["upload"], "Missing argument"),
        (["statsu"], "statsu"),
        (["run", "fixed-extractor", "--seed", "one"], "--seed"),
        (["run", "fixed-extractor", "--set", "folds"], "KEY=VALUE"),
        (["run", "fixed-extractr", "--data", "x"], "fixed-extractor"),
        (["up", "--provider", "dokcer"], "docker"),
        (["up", "--machine", "No Such"], "--machine"),
        (["up", "--max-hours", "1000"], "--max-hours"),
        (["ssh", "-L", "nonsense"], "LOCAL:HOST:PORT"),
        (["upload", ".", "--flips", "sideways"], "horizontal"),
        ([], "Usage"),
    ],
)
def test_wrong_use_is_exit_2_and_says_what(tlvm: Tlvm, words: list[str], said: str) -> None:
    answer = tlvm(*words)
    assert answer.code == 2
    assert said in answer.err + answer.out


@pytest.mark.parametrize(
    ("words", "error", "next"),
    [
        ("statsu", "No such command 'statsu'", "Did you mean 'status'"),
        ("datasets shw", "No such command 'shw'", "Did you mean 'show'? tlvm datasets --help lists the"),
        ("frobnicate", "No such command 'frobnicate'", "tlvm --help lists the commands."),
        ("status --jsn", "No such option: --jsn", "Did you mean --json? tlvm status --help explains it."),
        ("status more", "Got unexpected extra argument", "tlvm status --help explains it."),
        ("up --max-hours", "Option '--max-hours' requires an argument", "tlvm up --help explains it."),
    ],
)
def test_what_the_parser_refuses_looks_like_every_error(
    tlvm: Tlvm, words: str, error: str, next: str
) -> None:
    lines = tlvm(*words.split()).err.splitlines()
    assert lines[0].startswith(f"error   {error}") and lines[-1].startswith(f"next    {next}")
    assert len(lines) <= 3 and not any(line.startswith(("Error", "Usage", "Try")) for line in lines)


def test_wrong_use_with_json_is_an_object_too(tlvm: Tlvm) -> None:
    answer = tlvm("upload", "--json")
    assert answer.code == 2
    error = json.loads(answer.out)["error"]
    assert (error["class"], error["what"], error["next"]) == (
        "UsageError",
        "Missing argument 'DIR'",
        "tlvm upload --help explains it.",
    )


@pytest.mark.parametrize(
    "words", [["run", "fixed-extractor"], ["upload", "missing"], ["logs", "x"], ["predict", "x", "y"]]
)
def test_what_is_missing_is_exit_4_and_says_what_to_do(tlvm: Tlvm, words: list[str]) -> None:
    answer = tlvm(*words)
    assert answer.code == 4, answer.err
    assert "next    " in answer.err


def test_nothing_there_is_no_error(tlvm: Tlvm) -> None:
    for words in (["status"], ["datasets"], ["runs"], ["down"]):
        answer = tlvm(*words)
        assert answer.code == 0
        assert answer.out.splitlines()[-1].startswith("next: ")
        document = json.loads(tlvm(*words, "--json").out)
        assert (document["schema"], document["command"]) == (1, words[0])


def test_up_dry_run_creates_nothing(tlvm: Tlvm, tmp_path: Path) -> None:
    found = json.loads(tlvm("up", "--dry-run", "--json").out)
    assert found["machine"] is None
    assert found["offers"][0]["price_per_hour"] == 0
    assert "after its start; free" in tlvm("up", "--dry-run").out
    assert not (tmp_path / "data").exists()


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


def test_init_writes_once(tlvm: Tlvm) -> None:
    answer = tlvm("init", "--provider", "docker", "--store", 'gs://trees "4711"')
    assert answer.code == 0 and answer.out.splitlines()[-1] == "next: tlvm doctor"
    text = Path("tlvm.toml").read_text()
    assert 'provider = "docker"' in text and 'url = "gs://trees \\"4711\\""' in text
    assert tlvm("init").code == 10
    assert Path("tlvm.toml").read_text() == text
    assert tlvm("init", "--yes").code == 0
    assert 'provider = "local"' in Path("tlvm.toml").read_text()
    assert tlvm("init", "--yes", "--provider", "aws").code == 2


def test_doctor_looks_at_this_computer(tlvm: Tlvm) -> None:
    answer = tlvm("doctor", "--json")
    found = json.loads(answer.out)
    names = [finding["name"] for finding in found["findings"]]
    for name in ("python", "torch", "cores", "gpu", "disk", "docker"):
        assert name in names
    assert answer.code == found["exit_code"]


def test_a_bug_is_exit_1_with_a_traceback_and_where_to_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(common: options.Common) -> None:
        raise ZeroDivisionError("ours, Authorization: Bearer ya29.a0AfH6SMB")

    monkeypatch.setenv("TLVM_DATA_DIR", str(tmp_path))

    monkeypatch.setattr("orchestrator.cli.app.COMMANDS", (options.command()(broken),))
    with pytest.raises(SystemExit) as exit:
        main(["broken", "--json"])
    shown = capsys.readouterr()
    assert exit.value.code == 1
    assert "ZeroDivisionError: ours" in shown.err
    (file,) = (tmp_path / "bugs").iterdir()
    assert f"Please report it to whoever maintains it for you: send {file} and" in shown.err
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert "ZeroDivisionError: ours" in text and f"tlvm {__version__}, Python " in text
    assert "tlvm broken --json" in text
    error = json.loads(shown.out)["error"]
    assert (error["class"], error["exit_code"]) == ("Bug", 1) and str(file) in error["next"]
    assert "a0AfH6SMB" not in text + shown.err + shown.out
    assert "http" not in shown.err


def test_a_bug_that_can_not_be_written_down_is_still_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(common: options.Common) -> None:
        raise ZeroDivisionError("ours")

    (tmp_path / "file").touch()
    monkeypatch.setenv("TLVM_DATA_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("orchestrator.cli.app.COMMANDS", (options.command()(broken),))
    with pytest.raises(SystemExit):
        main(["broken"])
    assert "with the lines above and what you did." in capsys.readouterr().err


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


def test_a_terminal_that_knows_little_still_gets_an_answer(process: Process) -> None:
    for words in ((), ("run", "--help"), ("status",)):
        answer = process(*words, PYTHONIOENCODING="ascii")
        assert "UnicodeEncodeError" not in answer.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_shown(process: Process, shell: str) -> None:
    answer = process("--show-completion", shell)
    assert answer.code == 0
    assert "_TLVM_COMPLETE" in answer.out


def complete(process: Process, line: str) -> list[str]:
    words = line.split(" ")
    answer = process(_TLVM_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    return answer.out.split()


def test_names_are_completed_from_what_is_here(process: Process, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "records" / "machines" / "local").mkdir(parents=True)
    (data / "records" / "machines" / "local" / "tlvm-ana-trees.json").write_text("{}")
    (data / "records" / "runs").mkdir()
    for run in ("fixed-extractor-20260807-142530-k3qz", "from-scratch-20270101-000000-aaaa"):
        (data / "records" / "runs" / f"{run}.json").write_text("{}")
    (data / "store" / "datasets" / "trees").mkdir(parents=True)
    stored = data / "store" / "runs" / "initial-layers-20260101-000000-x7yz"
    stored.mkdir(parents=True)
    (stored / "spec.json").write_text("{}")
    assert "upload" in complete(process, "tlvm up")
    assert complete(process, "tlvm run fix") == ["fixed-extractor"]
    assert complete(process, "tlvm up --provider d") == ["docker"]
    assert complete(process, "tlvm status --machine tl") == ["tlvm-ana-trees"]
    assert complete(process, "tlvm run fixed-extractor --dataset t") == ["trees"]
    assert complete(process, "tlvm logs f") == [
        "from-scratch-20270101-000000-aaaa",
        "fixed-extractor-20260807-142530-k3qz",
    ]
    assert complete(process, "tlvm pull k3") == ["k3qz"]
    assert complete(process, "tlvm predict x7") == ["x7yz"]
    assert complete(process, "tlvm run --spec fix") == ["fixed-extractor-20260807-142530-k3qz"]
    assert "resnet18" in complete(process, "tlvm run fixed-extractor --model res")
    assert complete(process, "tlvm run fixed-extractor --set fo") == ["folds="]


@pytest.mark.parametrize(
    ("words", "next"),
    [
        ("run", "tlvm run --spec RUN repeats a run"),
        ("run all --spec k3qz", "tlvm run --spec k3qz"),
        ("run fixed-extractor --ephemeral --machine tlvm-mine", "Leave one of them out"),
        ("run fixed-extractor from-scratch --spec k3qz", "tlvm run --spec k3qz"),
        ("run fixed-extractor --rehearse --detach", "without it and with --detach"),
        ("run fixed-extractor --rehearse --if-changed", "without it and with --if-changed"),
    ],
)
def test_words_of_a_run_that_exclude_each_other_say_what_to_write(tlvm: Tlvm, words: str, next: str) -> None:
    answer = tlvm(*words.split())
    assert answer.code == 2
    assert next in answer.err


def test_the_help_of_run_is_no_longer_than_a_screen_and_a_half(helps: dict[str, str]) -> None:
    assert len(helps["run"].splitlines()) <= 64


def test_completion_survives_a_broken_file(process: Process) -> None:
    (process.folder / "tlvm.toml").write_text("store = [")
    assert complete(process, "tlvm run fixed-extractor --dataset t") == []


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


def test_the_page_about_json_is_that_of_the_results() -> None:
    from orchestrator.render.json_schema import RESULTS, page

    assert (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8") == page()
    below = {f"{name} {one.name}" for name, commands in BELOW.items() for one in commands}
    others = {
        "pull --all",
        "run A B, run all",
        "run --rehearse",
    }  # what a command prints for several things at once
    assert set(RESULTS) | {"logs"} == set(NAMES) | below | others
