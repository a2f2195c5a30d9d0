"""The machine's half on the command line: `python -m remote RUN_SPEC` and what the laptop calls over SSH.

    RUN_SPEC                                     supervise a run in the foreground
    start RUN_SPEC                               the same, detached; prints {"pid": ...}; "-" reads the spec, or a
                                                 StartRequest (contract.start_request), from stdin
    follow RUN_ID [--from BYTE] [--stream S]     send events or log as they grow (frames of contract.frames)
    status                                       every run of this machine as JSON
    resume [--boot] [--seconds-left S]           start every run again that is not over; --boot reads a BootRun, too,
                                                 from stdin: the run of the machine's own metadata
    prefetch                                     fetch the packs that stdin names, from the store in its first line
    cancel RUN_ID                                end a run, waiting or running; prints {"state": ...}
    train RUN_SPEC                               the training itself; the supervisor calls it
    predict MODEL_DIR PATHS...                   JSON lines

Errors are one line on stderr; exit codes are those of tlvm: 2 usage, 4 no such run, 7 the store, 10 already active.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from remote.contract.document import ContractError
from remote.contract.layout import MachineHome, checked_run_id

VERBS = ("supervise", "start", "follow", "status", "resume", "prefetch", "cancel", "train", "predict")


def main(arguments: Sequence[str]) -> int:
    home = MachineHome.of_this_user()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in VERBS:
        arguments = ["supervise", *arguments]
    options = _parser().parse_args(arguments)
    act: Callable[[argparse.Namespace, MachineHome], int] = options.act
    try:
        return act(options, home)
    except ContractError as error:
        return _refuse(2, str(error))
    except FileNotFoundError as error:
        return _refuse(4, f"{error.filename or error} does not exist on this machine")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m remote", description="Runs one tlvm run on this machine."
    )
    verbs = parser.add_subparsers(required=True, metavar="RUN_SPEC | VERB")

    supervise = verbs.add_parser("supervise", help="supervise a run in the foreground")
    supervise.add_argument("spec", type=Path)
    supervise.add_argument("--lock", type=int, help=argparse.SUPPRESS)
    supervise.add_argument("--ticket", help=argparse.SUPPRESS)
    supervise.set_defaults(act=_supervise)

    start = verbs.add_parser("start", help="supervise a run in a session of its own")
    start.add_argument("spec", type=Path)
    start.set_defaults(act=_start)

    follow = verbs.add_parser("follow", help="send a stream of a run as it grows")
    follow.add_argument("run_id", type=checked_run_id)
    follow.add_argument("--from", dest="start", type=int, default=0, metavar="BYTE")
    follow.add_argument("--stream", choices=("events", "log"), default="events")
    follow.set_defaults(act=_follow)

    status = verbs.add_parser("status", help="every run of this machine, as JSON")
    status.set_defaults(act=_status)

    resume = verbs.add_parser("resume", help="start every run again that is not over")
    resume.add_argument("--boot", action="store_true", help="stdin names a run of the store, too")
    resume.add_argument("--seconds-left", type=float, metavar="S", help="until the hard end of the machine")
    resume.set_defaults(act=_resume)

    prefetch = verbs.add_parser("prefetch", help="fetch packs as stdin names them, a hash in each line")
    prefetch.set_defaults(act=_prefetch)

    cancel = verbs.add_parser("cancel", help="end a run, waiting or running")
    cancel.add_argument("run_id", type=checked_run_id)
    cancel.set_defaults(act=_cancel)

    train = verbs.add_parser("train", help="the training itself; the supervisor calls it")
    train.add_argument("spec", type=Path)
    train.set_defaults(act=_train)

    predict = verbs.add_parser("predict", help="classify images with a model, as JSON lines")
    predict.add_argument("model", type=Path)
    predict.add_argument("paths", type=Path, nargs="+")
    predict.set_defaults(act=_predict)
    return parser


def _supervise(options: argparse.Namespace, home: MachineHome) -> int:
    from remote.job.line import AlreadyActive
    from remote.job.supervisor import supervise

    try:
        code = supervise(
            options.spec, home, lock=options.lock, ticket=options.ticket, echo=options.lock is None
        )
    except AlreadyActive as error:
        return _refuse(10, f"{error} is active already")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a transfer that hangs in its thread must not hold the end of the process


def _start(options: argparse.Namespace, home: MachineHome) -> int:
    from remote.job.launch import AlreadyOver, accept, start
    from remote.job.line import AlreadyActive

    given = sys.stdin.buffer.read() if str(options.spec) == "-" else options.spec.read_bytes()
    try:
        print(json.dumps({"pid": start(accept(given, home), home)}))
    except AlreadyActive as error:
        return _refuse(10, f"{error} is active already")
    except AlreadyOver as error:
        return _refuse(10, f"{error} has ended already")
    return 0


def _follow(options: argparse.Namespace, home: MachineHome) -> int:
    from remote.job.follow import follow

    if not home.run(options.run_id).root.is_dir():
        return _refuse(4, f"{options.run_id} is not on this machine")
    try:
        follow(home, options.run_id, options.stream, max(0, options.start), sys.stdout.buffer)
    except BrokenPipeError:
        # Nobody listens: nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _status(options: argparse.Namespace, home: MachineHome) -> int:
    from remote.job.status import status

    print(json.dumps(status(home)))
    return 0


def _resume(options: argparse.Namespace, home: MachineHome) -> int:
    from remote.contract.document import decode
    from remote.contract.start_request import BootRun
    from remote.job.resume import resume
    from remote.store import StoreError

    boot = decode(BootRun, sys.stdin.buffer.read(), what="run of the metadata") if options.boot else None
    try:
        return 1 if resume(home, boot=boot, seconds_left=options.seconds_left) else 0
    except StoreError as error:
        return _refuse(7, str(error))


def _prefetch(options: argparse.Namespace, home: MachineHome) -> int:
    from remote.job.prefetch import NoRoom, prefetch
    from remote.store import StoreError

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a laptop that goes still wants what it has named
    try:
        prefetch(sys.stdin.buffer, home)
    except (StoreError, NoRoom, OSError) as error:
        return _refuse(7, str(error))
    return 0


def _cancel(options: argparse.Namespace, home: MachineHome) -> int:
    from remote.job.launch import cancel

    state = cancel(home, options.run_id)
    print(json.dumps({"state": state}))
    return 0 if state else 8


def _train(options: argparse.Namespace, home: MachineHome) -> int:
    from remote.job.training_process import end_with_supervisor, hours_left

    end_with_supervisor()
    left_s = hours_left()
    from remote.train import main as train

    return train(options.spec, left_s=left_s)


def _predict(options: argparse.Namespace, home: MachineHome) -> int:
    from remote.predict import main as predict

    return predict(options.model, options.paths)


def _refuse(code: int, text: str) -> int:
    print(text, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
