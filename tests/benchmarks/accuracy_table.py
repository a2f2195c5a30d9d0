"""What the runs of the accuracy table say, as Markdown."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from remote.contract.intervals import wilson

PEER = "scikit-learn"
PEER_BALANCED = f"{PEER}, balanced"
_FROZEN = ("fixed-extractor", "initial-layers", PEER)
_TRAINED = ("fixed-extractor", "fine-tune-top", "fine-tune-all", "from-scratch")
_OWN_SIZE = {
    "epochs",
    "patience",
    "batch_size",
}  # told beside the figure; other parameters make a row of their own


@dataclass
class Runs:
    """The runs of one scenario on the same images: each image's truth and what was said of it."""

    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def right(self) -> list[bool]:
        return [
            truth == said
            for record in self.records
            for truth, said in zip(record["labels"], record["said"], strict=True)
        ]

    @property
    def accuracy(self) -> float:
        return sum(self.right) / len(self.right)

    @property
    def balanced(self) -> float:
        """The mean recall of the classes."""
        found: dict[int, list[bool]] = defaultdict(list)
        for record in self.records:
            for truth, said in zip(record["labels"], record["said"], strict=True):
                found[truth].append(truth == said)
        return sum(sum(one) / len(one) for one in found.values()) / len(found)

    @property
    def text(self) -> str:
        low, high = wilson(sum(self.right), len(self.right))
        return f"{self.accuracy:.3f} ({low:.3f} - {high:.3f})"


Rows = Mapping[tuple[str, str, str], Mapping[str, Runs]]  # data, model, parameters; then scenario


def line(record: dict[str, Any]) -> str:
    """One run, as it ends."""
    runs = Runs([record])
    return (
        f"{record['data']} {record['model']} {record['scenario']} turn {record['turn']} seed {record['seed']} "
        f"{record['parameters'] or ''}: {runs.text}, balanced {runs.balanced:.3f}, {record['seconds']} s "
        f"{record.get('chosen', '')}"
    )


def text(records: Sequence[dict[str, Any]]) -> str:
    """All tables."""
    given = _rows([record for record in records if record["turn"] == 0 and record["seed"] == 0])
    seeds = _rows([record for record in records if record["turn"] == 0])
    dealt = _rows([record for record in records if record["turn"] > 0])
    return "\n".join(
        [
            *_frozen("Given split, seed 0", given, 1),
            *_frozen("Train and val dealt out anew three times, each image in val once", dealt, 3),
            *_trained("Trained scenarios, given split, seeds 0 to 2", seeds),
            *_balance("Unequal classes, given split", given),
            *_balance("Unequal classes, dealt out anew three times", dealt),
            *_depths(records),
            *_more(records),
        ]
    )


def mcnemar(one: Sequence[bool], other: Sequence[bool]) -> tuple[int, int, float]:
    """Images that only `one` has right, that only `other` has, and the exact two-sided probability of that by chance."""
    gained = sum(a and not b for a, b in zip(one, other, strict=True))
    lost = sum(b and not a for a, b in zip(one, other, strict=True))
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n
    return gained, lost, min(1.0, 2 * tail)


def _rows(records: Sequence[dict[str, Any]]) -> Rows:
    found: dict[tuple[str, str, str], dict[str, Runs]] = defaultdict(lambda: defaultdict(Runs))
    for record in sorted(records, key=lambda one: (int(one["turn"]), int(one["seed"]))):
        other = {name: value for name, value in record["parameters"].items() if name not in _OWN_SIZE}
        label = ", ".join(f"{name} {value}" for name, value in other.items())
        found[record["data"], record["model"], label][record["scenario"]].records.append(record)
    return found


def _frozen(title: str, rows: Rows, turns: int) -> Iterator[str]:
    yield f"### {title}\n"
    yield "| data | model | n | fixed-extractor | scikit-learn, same features | that one ahead by, in standard errors | initial-layers | only one right: initial, fixed; p | chosen |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for (data, model, parameters), runs in sorted(rows.items()):
        if parameters or any(name not in runs or len(runs[name].records) < turns for name in _FROZEN[:1]):
            continue
        fixed = runs["fixed-extractor"]
        cells = [data, model, str(len(fixed.right)), fixed.text, "", "", "", "", ""]
        if PEER in runs and len(runs[PEER].right) == len(fixed.right):
            cells[4] = runs[PEER].text
            cells[5] = f"{(runs[PEER].accuracy - fixed.accuracy) / _error(fixed):+.2f}"
        if "initial-layers" in runs and len(runs["initial-layers"].right) == len(fixed.right):
            early = runs["initial-layers"]
            gained, lost, p = mcnemar(early.right, fixed.right)
            cells[6:] = [
                early.text,
                f"{gained}, {lost}; {p:.2g}",
                ", ".join(dict.fromkeys(record["chosen"] for record in early.records)),
            ]
        yield "| " + " | ".join(cells) + " |"
    yield ""


def _error(runs: Runs) -> float:
    return math.sqrt(runs.accuracy * (1 - runs.accuracy) / len(runs.right)) or 1 / len(runs.right)


def _trained(title: str, rows: Rows) -> Iterator[str]:
    yield f"### {title}\n"
    yield "| data | model | with | n | " + " | ".join(_TRAINED) + " |"
    yield "|---|---|---|---|" + "---|" * len(_TRAINED)
    for (data, model, parameters), runs in sorted(rows.items()):
        if not set(runs) & set(_TRAINED[1:]):
            continue
        cells = [_cell(runs[name]) if name in runs else "" for name in _TRAINED]
        n = len(next(iter(runs.values())).records[0]["labels"])
        yield f"| {data} | {model} | {parameters or '224 px'} | {n} | " + " | ".join(cells) + " |"
    yield ""


def _cell(runs: Runs) -> str:
    """The mean over seeds, with the interval of as many images as one of them was measured on, and each seed's."""
    each = [Runs([record]).accuracy for record in runs.records]
    n, mean = len(runs.records[0]["labels"]), sum(each) / len(each)
    low, high = wilson(mean * n, n)
    seeds = f": {', '.join(f'{one:.3f}' for one in each)}" if len(each) > 1 else ", one seed"
    epochs = runs.records[0]["parameters"].get("epochs")
    return f"{mean:.3f} ({low:.3f} - {high:.3f}){seeds}" + (f"; {epochs} epochs" if epochs else "")


def _balance(title: str, rows: Rows) -> Iterator[str]:
    """What is done for rare classes, beside scikit-learn when it does nothing, and when it does the like."""
    yield f"### {title}\n"
    yield "| data | model | n | fixed-extractor | top-1 | mean recall | scikit-learn, same features | top-1 | mean recall | that one ahead by, top-1, in standard errors |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for data, model in dict.fromkeys(key[:2] for key in rows if key[2].startswith("balance")):
        peers = rows[data, model, ""]
        for ours, parameters, name in (
            ("default", "", PEER),
            ("default", "", PEER_BALANCED),
            ("balance off", "balance off", PEER),
            ("balance on", "balance on", PEER_BALANCED),
        ):
            found = rows.get((data, model, parameters), {})
            if "fixed-extractor" in found and name in peers:
                one, peer = found["fixed-extractor"], peers[name]
                weights = "every class weighs the same" if name == PEER_BALANCED else "plain"
                yield (
                    f"| {data} | {model} | {len(one.right)} | {ours} | {one.text} | {one.balanced:.3f} | {weights} "
                    f"| {peer.text} | {peer.balanced:.3f} | {(peer.accuracy - one.accuracy) / _error(one):+.2f} |"
                )
    yield ""


def _depths(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "### By depth, held out inside train\n"
    for record in records:
        if (record["turn"], record["scenario"], record["parameters"]) == (0, "initial-layers", {}):
            curve = " ".join(f"{accuracy:.3f}" for _, accuracy, _ in record["by_depth"])
            together = " ".join(f"{accuracy:.3f}" for _, accuracy in record.get("together", []))
            yield (
                f"* {record['data']}, {record['model']}: {curve}; all up to the second, third, ...: "
                f"{together or 'not noted'}; chosen {record['chosen']} at {record['held_out']:.3f}"
            )
    yield ""


def _more(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What else the runs of fixed-extractor tell."""
    yield "### fixed-extractor, given split: balance, views, calibration, doubts, groups\n"
    yield "| data | model | with | top-1 | balanced accuracy | calibration error, before and after | doubtful labels of train | suspected groups |"
    yield "|---|---|---|---|---|---|---|---|"
    for record in records:
        if record["scenario"] == "fixed-extractor" and record["turn"] == 0 and record["seed"] == 0:
            runs, (before, after) = Runs([record]), record["calibration"]
            groups = "; ".join(
                f"by {one['by']}: {one['by_chance']:.3f} to {one['without_own']:.3f}"
                for one in record["suspected_groups"]
            )
            yield (
                f"| {record['data']} | {record['model']} | {_words(record['parameters'])} | {runs.accuracy:.3f} "
                f"| {runs.balanced:.3f} | {before:.3f}, {after:.3f} | {record['doubtful']} | {groups or 'none'} |"
            )
    yield ""


def _words(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in parameters.items()) or "defaults"
