"""`python -m tests.benchmarks.startup`: how long `tlvm --help` takes, beside a bare typer application.

Both sides are processes started in turn, so that noise of the computer hits both; the ratio is that of the medians.
The promise: at most 1.4, for `tlvm --help` and the help of every subcommand, and nothing heavy is imported.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import measure

BAR = 1.4
HEAVY = (
    "torch",
    "torchvision",
    "google",
    "fabric",
    "paramiko",
    "docker",
    "asyncssh",
    "sklearn",
    "matplotlib",
)
_TLVM = "import sys; sys.argv[0] = 'tlvm'; from orchestrator.cli import main; sys.exit(main())"
_LOADED = f"""
import sys
sys.argv[0] = "tlvm"
from orchestrator.cli import main
try:
    main()
except SystemExit:
    pass
print(*sorted({{name.split(".")[0] for name in sys.modules}} & set({HEAVY!r})), file=sys.stderr)
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.startup", description=__doc__)
    parser.add_argument("--pairs", type=int, default=15, help="pairs of processes a command")
    parser.add_argument("--keep", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args(arguments)
    names = commands()
    with tempfile.TemporaryDirectory() as folder:
        bare = bare_application(Path(folder), names)
        rows = [row(bare, [name] if name else [], chosen.pairs) for name in ["", *names]]
    print(*(text for text, _ in rows), sep="\n")
    if chosen.keep:
        measure.keep(f"Start-up, {chosen.pairs} pairs each", [text for text, _ in rows])
    return 0 if all(good for _, good in rows) else 1


def commands() -> list[str]:
    """The subcommands of tlvm."""
    text = subprocess.run(
        [
            sys.executable,
            "-c",
            "from orchestrator.cli.app import COMMANDS; print(*(command.name for command in COMMANDS))",
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=measure.ROOT,
    ).stdout
    return text.split()


def bare_application(folder: Path, names: list[str]) -> str:
    """A program with as many commands, which do nothing."""
    functions = [
        f"@app.command({name!r})\ndef command_{number}() -> None:\n    'Nothing.'\n"
        for number, name in enumerate(names)
    ]
    (folder / "bare.py").write_text(
        "import typer\napp = typer.Typer(rich_markup_mode=None)\n" + "\n".join(functions), encoding="utf-8"
    )
    return (
        f"import sys; sys.path.insert(0, {str(folder)!r}); sys.argv[0] = 'bare'; from bare import app; app()"
    )


def row(bare: str, command: list[str], pairs: int) -> tuple[str, bool]:
    """One command: both medians, their ratio, what heavy thing was imported."""
    ours, theirs = [], []
    for _ in range(pairs):
        ours.append(seconds(_TLVM, command))
        theirs.append(seconds(bare, command))
    ratio = statistics.median(ours) / statistics.median(theirs)
    heavy = loaded(command)
    good = ratio <= BAR and not heavy
    name = " ".join(["tlvm", *command, "--help"])
    return (
        f"{'ok  ' if good else 'FAIL'} {name:24} {statistics.median(ours):.3f} s, bare {statistics.median(theirs):.3f} s, "
        f"ratio {ratio:.2f} (at most {BAR}), imports {', '.join(heavy) or 'nothing heavy'}",
        good,
    )


def seconds(program: str, command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program, *command, "--help"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=measure.ROOT,
    )
    return time.perf_counter() - started


def loaded(command: list[str]) -> list[str]:
    """The heavy packages that are imported when the help has been shown."""
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, *command, "--help"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=measure.ROOT,
    )
    return done.stderr.split()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
