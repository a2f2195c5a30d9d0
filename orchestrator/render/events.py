"""The events of a run as they come from the machine: hostile text, shown as plain lines and bars on stderr."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from orchestrator.progress import Bar, Progress
from orchestrator.render.text import clean, columns, duration
from remote.contract.wording import count

LAYERS_MAX = 40  # of the network's table; a machine may claim any number
_STEPS = 8


class Events:
    """Takes one event after the other, in a `with`: a bar that is open is closed at its end."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stack = ExitStack()
        self._bar: Bar | None = None
        self._bar_of = ""
        self._done = 0
        self._kinds: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "state": self._state,
            "step": self._step,
            "network": self._network,
            "progress": self._advance,
            "epoch": self._epoch,
            "log": self._log,
            "published": self._published,
        }

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *of_error: object) -> None:
        self._close_bar()

    def show(self, event: Mapping[str, Any]) -> None:
        """One event; types and fields that are unknown, or not what they should be, are passed over."""
        kind = self._kinds.get(str(event.get("type")))
        if kind:
            kind(event)

    def _state(self, event: Mapping[str, Any]) -> None:
        self._close_bar()
        message = clean(event.get("message", ""))
        state = clean(event.get("state", "")).lower()
        self._progress.say("state", f"{state}: {message}" if message else state)

    def _step(self, event: Mapping[str, Any]) -> None:
        self._close_bar()
        number = _whole(event.get("number"))
        name = clean(event.get("name", ""))[:20]
        self._progress.say(f"{number}/{_STEPS}", f"{name:<11}{clean(event.get('text', ''))}")

    def _network(self, event: Mapping[str, Any]) -> None:
        self._close_bar()
        stages = event.get("stages")
        if not isinstance(stages, list):
            return
        rows = [("stage", "output", "parameters", "")]
        rows += [_stage(stage) for stage in stages[:LAYERS_MAX] if isinstance(stage, Mapping)]
        for line in columns(rows):
            self._progress.say("", line)
        if len(stages) > LAYERS_MAX:
            self._progress.say("", f"... and {len(stages) - LAYERS_MAX} more")

    def _advance(self, event: Mapping[str, Any]) -> None:
        step, unit = clean(event.get("step", ""))[:20], clean(event.get("unit", ""))[:12]
        done, total = _count(event.get("done")), _count(event.get("total"))
        if done is None or total is None or done > total:
            return
        if self._bar is None or self._bar_of != step:
            self._close_bar()
            self._bar = self._stack.enter_context(self._progress.bar(step, total, unit))
            self._bar_of, self._done = step, 0
        self._bar.advance(max(0, done - self._done))
        self._done = max(done, self._done)
        if done >= total:
            self._close_bar()

    def _epoch(self, event: Mapping[str, Any]) -> None:
        self._close_bar()
        epoch, of = _count(event.get("epoch")), _count(event.get("of"))
        if epoch is None or of is None:
            return
        parts = [f"epoch {epoch} of {of}"]
        names = {
            "train_loss": "train loss",
            "held_out_loss": "held-out loss",
            "held_out_accuracy": "held-out accuracy",
        }
        for name, text in names.items():
            value = _number(event.get(name))
            if value is not None:
                parts.append(f"{text} {value:.3f}")
        seconds = _number(event.get("seconds"))
        if seconds is not None:
            parts.append(duration(seconds))
        self._progress.say("", " · ".join(parts))

    def _log(self, event: Mapping[str, Any]) -> None:
        text = clean(event.get("text", ""))
        if event.get("level") in ("warning", "error"):
            self._progress.warn(text)
        else:
            self._progress.say("", text)

    def _published(self, event: Mapping[str, Any]) -> None:
        files = _count(event.get("files"))
        if files is not None:
            self._progress.say(
                "publish", f"{count(files, 'file')} {'is' if files == 1 else 'are'} in the store"
            )

    def _close_bar(self) -> None:
        self._stack.close()
        self._bar = None


def _stage(stage: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return (
        clean(stage.get("name", ""))[:40],
        _shape(stage.get("shape")),
        f"{_whole(stage.get('parameters')):,}".rjust(12),
        "frozen" if stage.get("frozen") else "trained",
    )


def _count(value: object) -> int | None:
    """How many of something; None for what can't be that."""
    number = _number(value)
    return int(number) if number is not None and number >= 0 else None


def _whole(value: object) -> int:
    return int(_number(value) or 0)


def _number(value: object) -> float | None:
    """A number that can be shown; None for anything else, infinities and numbers of a thousand digits too."""
    return float(value) if isinstance(value, int | float) and abs(value) < 1e15 else None


def _shape(value: object) -> str:
    return (
        " × ".join(str(_whole(side)) for side in value[:6]) if isinstance(value, list) else clean(value)[:40]
    )
