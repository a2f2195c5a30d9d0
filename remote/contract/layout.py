"""Where things are: in the bucket, and in the home of a machine. The one place that spells either.

datasets/<name>/manifests/<version>.jsonl.gz     written after its packs; its presence means complete
datasets/<name>/HEAD                             the newest version (replaced with a generation precondition)
datasets/<name>/looks/<version>/<split>/<run id> a run was measured on these images: the ledger of looks, written by laptops
packs/<hash>.tar                                 shared by all versions and datasets that hold the same images
weights/index.json, weights/<file>               mirrored pre-trained weights with sha256
bundles/<hash>.tar                               what machines run
checkpoints/<run id>/{LATEST.json, <checkpoint>}  LATEST.json last; all removed when the run's result is published
notes/<run id>.json                              tags and a note on a run: written by people, never by machines
runs/<run id>/{spec.json, status.json, attempts/<n>.json, events/<offset>, log/<offset>, model/, metrics.json,
               predictions.csv, MANIFEST.json}   MANIFEST.json last: only what it names is a result
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .document import ContractError

SEGMENT_BYTES = 4 * 1024 * 1024  # of events and log; only the last segment is rewritten

DATASETS = "datasets/"
PACKS = "packs/"
WEIGHTS = "weights/"
BUNDLES = "bundles/"
CHECKPOINTS = "checkpoints/"
RUNS = "runs/"
NOTES = "notes/"
WEIGHTS_INDEX = "weights/index.json"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,40}-[0-9]{8}-[0-9]{6}-[a-z0-9]{4}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MANIFEST_KEY = re.compile(rf"{DATASETS}([^/]+)/manifests/([^/]+)\.jsonl\.gz")


def manifest_key(dataset: str, version: str) -> str:
    return f"{manifests_prefix(dataset)}{sha256(version)}.jsonl.gz"


def manifests_prefix(dataset: str) -> str:
    return f"{DATASETS}{dataset_name(dataset)}/manifests/"


def is_manifest_key(key: str) -> bool:
    return _MANIFEST_KEY.fullmatch(key) is not None


def manifest_of(key: str) -> tuple[str, str]:
    """The dataset and version whose manifest has this key. ContractError when it is no manifest's."""
    found = _MANIFEST_KEY.fullmatch(key)
    if found is None:
        raise ContractError(f"not the key of a manifest: {key[:200]!r}")
    return found[1], found[2]


def head_key(dataset: str) -> str:
    return f"{DATASETS}{dataset_name(dataset)}/HEAD"


def looks_prefix(dataset: str, version: str, split: str = "") -> str:
    """Below it, one small blob for each run that was measured on these images, named by the run; by default of all splits."""
    below = f"{inside(split)}/" if split else ""
    return f"{DATASETS}{dataset_name(dataset)}/looks/{sha256(version)}/{below}"


def pack_key(pack: str) -> str:
    return f"{PACKS}{sha256(pack)}.tar"


def bundle_key(bundle: str) -> str:
    return f"{BUNDLES}{sha256(bundle)}.tar"


def weights_key(file: str) -> str:
    return WEIGHTS + inside(file)


def run_key(run_id: str, file: str = "") -> str:
    """The key of a file of a run; without a file, the prefix of all of them."""
    return f"{RUNS}{checked_run_id(run_id)}/{inside(file) if file else ''}"


def notes_key(run_id: str) -> str:
    return f"{NOTES}{checked_run_id(run_id)}.json"


def checkpoints_prefix(run_id: str) -> str:
    return f"{CHECKPOINTS}{checked_run_id(run_id)}/"


def checkpoint_key(run_id: str, file: str) -> str:
    return checkpoints_prefix(run_id) + inside(file)


def latest_checkpoints_key(run_id: str) -> str:
    return checkpoint_key(run_id, "LATEST.json")


def attempts_prefix(run_id: str) -> str:
    return run_key(run_id, "attempts") + "/"


def attempt_key(run_id: str, number: int) -> str:
    return f"{attempts_prefix(run_id)}{number}.json"


def segment_key(run_id: str, stream: str, offset: int) -> str:
    """The key of the segment of `stream` ("events" or "log") that begins at byte `offset`."""
    return run_key(run_id, f"{stream}/{offset:016d}")


def dataset_name(name: str) -> str:
    """The name itself, or ContractError: lower-case letters, digits, ".", "_" and "-", at most 63."""
    if not _NAME.fullmatch(name):
        raise ContractError(
            f"{name[:80]!r} is not a dataset name (a-z, 0-9, '.', '_', '-', at most 63 characters)"
        )
    return name


def checked_run_id(run_id: str) -> str:
    if not _RUN_ID.fullmatch(run_id):
        raise ContractError(f"{run_id[:80]!r} is not a run id (like fixed-extractor-20260807-142530-k3qz)")
    return run_id


def sha256(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise ContractError(f"{text[:80]!r} is not a sha256 (64 hexadecimal digits)")
    return text


def inside(path: str) -> str:
    """A relative POSIX path that stays below its folder, or ContractError."""
    parts = PurePosixPath(path).parts
    if (
        not parts
        or path.startswith("/")
        or ".." in parts
        or str(PurePosixPath(path)) != path
        or any(ord(character) < 32 or character == "\\" for character in path)
    ):
        raise ContractError(f"{path[:80]!r} is not a path inside its folder")
    return path


@dataclass(frozen=True)
class MachineHome:
    """The folder `~/.tlvm` of a machine, mode 0700.

    bundles/<hash>/{remote/, site/, READY}       the code that runs, unpacked wheels; READY last
    packs/<hash>.tar                             fetched, verified; shared by runs
    weights/<sha256>                             fetched, verified
    cache/                                       decoded images, features: anything that can be made again
    runs/<run id>/{spec.json, status.json, events.jsonl, log.txt, heartbeat, supervisor.json, result/,
                   checkpoints/, environment.json, dataset.jsonl.gz, trained_on.jsonl.gz}
    locks/accelerator-<n>                        held while a run uses it; freed by a crash
    READY                                        the startup marker
    """

    root: Path

    @staticmethod
    def of_this_user() -> MachineHome:
        return MachineHome(Path.home() / ".tlvm")

    def bundle(self, bundle: str) -> Path:
        return self.root / "bundles" / sha256(bundle)

    def pack(self, pack: str) -> Path:
        return self.root / "packs" / f"{sha256(pack)}.tar"

    def weights(self, digest: str) -> Path:
        return self.root / "weights" / sha256(digest)

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def run(self, run_id: str) -> RunFolder:
        return RunFolder(self.runs / checked_run_id(run_id))

    @property
    def ready(self) -> Path:
        return self.root / "READY"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run on its machine."""

    root: Path

    @property
    def spec(self) -> Path:
        return self.root / "spec.json"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.root / "log.txt"

    @property
    def manifest(self) -> Path:
        return self.root / "dataset.jsonl.gz"

    @property
    def trained_on(self) -> Path:
        """The manifest that the model of a job `evaluate` was trained on."""
        return self.root / "trained_on.jsonl.gz"

    @property
    def heartbeat(self) -> Path:
        return self.root / "heartbeat"

    @property
    def supervisor(self) -> Path:
        return self.root / "supervisor.json"

    @property
    def result(self) -> Path:
        return self.root / "result"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def environment(self) -> Path:
        """Variables of the training process, secrets among them: mode 0600, on this machine only."""
        return self.root / "environment.json"
