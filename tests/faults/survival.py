"""What the tests of faults share: a user, a bucket, a machine, and one small real training with its undisturbed result.

The machine is one of the provider `local` or `docker`; the code on both sides is the copy of `scaled`. Faults strike
while training waits somewhere for the test (`held`), never after so many seconds: none comes too late.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from remote.contract.document import decode
from remote.contract.events import parse
from remote.contract.layout import checkpoint_key, latest_checkpoints_key
from remote.contract.stored_checkpoints import LatestCheckpoints
from tests.e2e.command import OWNER, Answer, Tlvm
from tests.fakes.gcs_buckets import Refused
from tests.fakes.gcs_server import GcsServer
from tests.faults.fork_server import Forked, Job
from tests.remote.machine import eventually
from tests.shared_data import shared

BUCKET = "faults-4711"
MACHINE = f"tlvm-{OWNER}-faults"
_SETTINGS = {
    "image_size": 32,
    "batch_size": 8,
    "learning_rate": 3e-5,  # so small that each epoch is better than the one before
    "decode_workers": 2,
}


@dataclass(frozen=True)
class Result:
    """What must be equal to the bit. The path is what each epoch came to, whatever attempt it was in."""

    model: str
    predictions: str
    path: list[tuple[float, ...]]


@dataclass
class World:
    """A user who has uploaded a dataset to the bucket, and has a machine."""

    forked: Forked
    bucket: GcsServer
    folder: Path
    variables: dict[str, str]
    epochs: int
    model_is_late: float = 1 / 2  # of all epochs, the one that becomes the model comes later than so many
    begun: int = 0
    jobs: list[Job] = field(default_factory=list)

    def begin(self, *words: str | Path) -> Job:
        self.begun += 1
        job = self.forked.begin(words, self.folder, self.variables, out=f"out-{self.begun}")
        self.jobs.append(job)
        return job

    def __call__(self, *words: str | Path, expect: int = 0, within_s: float = 200) -> Answer:
        answer = self.begin(*words).answer(within_s)
        assert answer.exit_code == expect, (
            f"{' '.join(map(str, words))}: exit {answer.exit_code}\n{answer.stdout}\n{answer.stderr}"
        )
        return answer

    def run(self, *more: str) -> list[str]:
        """The words that begin the run."""
        weights = str(shared("weights/squeezenet1_1-onnxzoo-fp32.pth"))
        values = _SETTINGS | {"epochs": self.epochs, "patience": self.epochs}
        settings = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
        return ["run", "fine-tune-all", "--model", "squeezenet1_1", "--weights", weights, *settings, *more]

    def started(self, *more: str) -> str:
        """The id of a run that has begun, followed by nobody."""
        return str(self(*self.run("--detach", "--json", *more)).document["run_id"])

    @property
    def data(self) -> Path:
        return Path(self.variables["TLVM_DATA_DIR"])

    def on_another_computer(self, folder: Path) -> World:
        """The same user, with the same key: what it knows of the machine `local` may be changed there."""
        data = folder / "data"
        shutil.copytree(self.data, data, ignore=shutil.ignore_patterns("home", "cache"))
        return replace(self, folder=folder, variables=self.variables | {"TLVM_DATA_DIR": str(data)})

    def with_machine(self, name: str) -> World:
        """The same user, of another machine."""
        folder = self.folder / name
        folder.mkdir()
        return replace(self, folder=folder, variables=self.variables | {"TLVM_MACHINE_NAME": name})

    def stored(self, key: str) -> bytes | None:
        """What the bucket holds, asked behind everybody's back."""
        try:
            return self.bucket.api.buckets.get(BUCKET, key, {}).content
        except Refused:
            return None

    def published(self, run_id: str, *, within_s: float = 200) -> None:
        """Wait for the result in the bucket."""
        eventually(lambda: self.stored(f"runs/{run_id}/MANIFEST.json") is not None, within_s=within_s)

    def checkpoints(self, run_id: str, count: int) -> list[str]:
        """The keys of the newest in the bucket, as soon as there are so many."""
        found: list[str] = []

        def came() -> bool:
            if text := self.stored(latest_checkpoints_key(run_id)):
                files = decode(LatestCheckpoints, text, what="LATEST.json").files
                found[:] = [checkpoint_key(run_id, file.name) for file in files]
            return len(found) >= count

        eventually(came, within_s=200)
        return found

    def pulled(self, run_id: str) -> Result:
        return result_in(self.folder_of(run_id))

    def folder_of(self, run_id: str) -> Path:
        """Of its verified result."""
        return Path(self("pull", run_id, "--json").document["folder"])

    @cached_property
    def reference(self) -> Path:
        """The result of a run that nothing happens to. Its model is of a late epoch: no fault comes after it."""
        folder = Path(self(*self.run("--json"), within_s=280).document["folder"])
        kept = re.search(r"epoch (\d+) of \d+ epochs kept", (folder / "log.txt").read_text())
        assert kept and int(kept[1]) > self.model_is_late * self.epochs, kept
        return folder

    @cached_property
    def undisturbed(self) -> Result:
        return result_in(self.reference)

    def epochs_in(self, shown: str) -> list[int]:
        return [int(number) for number in re.findall(r"epoch (\d+) of \d+ ·", shown)]

    def end(self) -> None:
        for job in self.jobs:
            job.kill()


def result_in(folder: Path) -> Result:
    training = json.loads((folder / "metrics.json").read_text())["training"]
    names = ("epoch", "train_loss", "held_out_loss", "held_out_accuracy")
    path = [tuple(epoch[name] for name in names) for epoch in training["epochs"]]
    seen: dict[int, object] = {}
    for line in (folder / "events.jsonl").read_bytes().splitlines():
        event = parse(line) or {}
        if event.get("type") == "epoch":
            found = (event["train_loss"], event["held_out_loss"])
            assert seen.setdefault(event["epoch"], found) == found, "repeated with other numbers"
    return Result(_sha256(folder / "model/model.safetensors"), _sha256(folder / "predictions.csv"), path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def world(
    folder: Path, code: Path, provider: str, *, epochs: int, address: str = "127.0.0.1", train: int = 12
) -> Iterator[World]:
    """
    address   of the bucket, as machines see it
    train     images of each class
    """
    photographs(folder / "photos", {"train": train, "val": 6, "test": 3})
    with (
        GcsServer(["127.0.0.1", address][address == "127.0.0.1" :]) as bucket,
        Forked(1, code=code) as forked,
    ):
        variables = Tlvm(folder).environment() | {
            "TLVM_PROVIDER": provider,
            "TLVM_MACHINE_NAME": MACHINE,
            "TLVM_MACHINE_MAX_HOURS": "1",
            "TLVM_STORE_URL": bucket.create_bucket(BUCKET),
            "TLVM_STORE_ENDPOINT": bucket.endpoint_at(address),
            "OMP_NUM_THREADS": "1",  # two that wait for each other on a busy computer take many times as long
        }
        user = World(forked, bucket, folder, variables, epochs)
        try:
            user("up")
            user("upload", folder / "photos")
            yield user
        finally:
            user.end()
            user("down", "--force", "--yes")


def photographs(folder: Path, numbers: Mapping[str, int]) -> None:
    """A few ants and bees; those of `test` are others of `val`."""
    for split, number in numbers.items():
        for name in ("ants", "bees"):
            (folder / split / name).mkdir(parents=True)
            source = shared(f"data/hymenoptera/{'train' if split == 'train' else 'val'}/{name}")
            files = sorted(source.glob("*.jpg"))
            for file in files[-number:] if split == "test" else files[:number]:
                shutil.copy(file, folder / split / name)
