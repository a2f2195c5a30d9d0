"""Progress on stderr: bars where somebody looks at a terminal, plain lines in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from orchestrator.progress import Bar
from orchestrator.render.text import clean, duration, size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_LABEL_WIDTH = 8
_PLAIN_EVERY_S = 10.0
_RATE_FROM_S = 1.0  # before, a rate tells more of how work begins than of how it goes on


def labelled(label: str, text: str) -> str:
    return f"{label:<{_LABEL_WIDTH}}{text}" if len(label) < _LABEL_WIDTH else f"{label} {text}"


def amount(number: float, unit: str) -> str:
    return size(number) if unit == "bytes" else f"{number:,.0f}"


class Plain:
    """Whole lines, no colours: a bar says where it is at most every ten seconds, and how long it took."""

    def __init__(self, stream: IO[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._lock = threading.Lock()

    def say(self, label: str, text: str) -> None:
        self.line(labelled(clean(label), clean(text)))

    def warn(self, text: str) -> None:
        self.line(labelled("warn", clean(text)))

    def line(self, text: str, *, style: str = "") -> None:
        """`style` is for terminals."""
        with self._lock:
            self._stream.write(clean(text).rstrip() + "\n")
            self._stream.flush()

    @contextmanager
    def bar(self, label: str, total: int, unit: str) -> Iterator[Bar]:
        bar = _PlainBar(self, clean(label), total, unit, self._clock)
        yield bar
        bar.finish()


class _PlainBar:
    def __init__(self, out: Plain, label: str, total: int, unit: str, clock: Callable[[], float]) -> None:
        self._out, self._label, self._clock = out, label, clock
        self._count = _Count(total, unit)
        self._lock = threading.Lock()
        self._began = self._said = clock()

    def advance(self, amount: int = 1, size_bytes: int = 0) -> None:
        with self._lock:
            self._count.add(amount, size_bytes)
            now = self._clock()
            if now - self._said < _PLAIN_EVERY_S or self._count.is_complete:
                return  # of all, the last line tells
            self._said = now
            text = self._count.live(now - self._began)
        self._out.say(self._label, text)

    def finish(self) -> None:
        self._out.say(self._label, f"{self._count} in {duration(self._clock() - self._began)}")


class Terminal:
    """Colours, and one live bar below the lines; a finished bar becomes a line."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._lock = threading.Lock()
        self._live: RichProgress | None = None
        self._bars = 0

    def say(self, label: str, text: str) -> None:
        from rich.text import Text

        line = labelled(clean(label), clean(text))
        shown = Text(line)
        shown.stylize("bold cyan", 0, len(clean(label)))
        self._console.print(shown, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.line(labelled("warn", clean(text)), style="yellow")

    def line(self, text: str, *, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(clean(text).rstrip(), style=style), soft_wrap=True)

    @contextmanager
    def bar(self, label: str, total: int, unit: str) -> Iterator[Bar]:
        live = self._begin()
        task = live.add_task(clean(label), total=total or None, done="", unit=unit)
        bar = _TerminalBar(live, task, _Count(total, unit), self._clock)
        began = self._clock()
        try:
            yield bar
        finally:
            self._end(live, task)
        self.say(label, f"{bar.count} in {duration(self._clock() - began)}")

    def _begin(self) -> RichProgress:
        """One live display for however many bars run at once: rich allows no second."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        with self._lock:
            if self._live is None:
                self._live = Progress(
                    TextColumn("{task.description:<7}", markup=False),
                    BarColumn(bar_width=30),
                    TextColumn("{task.fields[done]}", markup=False),
                    TimeRemainingColumn(compact=True),
                    console=self._console,
                    transient=True,
                )
                self._live.start()
            self._bars += 1
            return self._live

    def _end(self, live: RichProgress, task: TaskID) -> None:
        with self._lock:
            live.remove_task(task)
            self._bars -= 1
            if self._bars == 0:
                live.stop()
                self._live = None


class _TerminalBar:
    def __init__(self, live: RichProgress, task: TaskID, count: _Count, clock: Callable[[], float]) -> None:
        self.count = count
        self._live, self._task, self._clock = live, task, clock
        self._began = clock()
        self._lock = threading.Lock()

    def advance(self, amount: int = 1, size_bytes: int = 0) -> None:
        with self._lock:
            self.count.add(amount, size_bytes)
            text = self.count.live(self._clock() - self._began)
        self._live.update(self._task, advance=amount, done=text)


class _Count:
    """What a bar has come to."""

    def __init__(self, total: int, unit: str) -> None:
        self._total, self._unit = total, unit
        self._done = self._bytes = 0

    def add(self, amount: int, size_bytes: int) -> None:
        self._done += amount
        self._bytes += amount if self._unit == "bytes" else size_bytes

    @property
    def is_complete(self) -> bool:
        return bool(self._total) and self._done >= self._total

    def live(self, seconds: float) -> str:
        """With bytes and their rate, where they are known."""
        if not self._bytes:
            return str(self)
        rate = f", {size(self._bytes / seconds)}/s" if seconds >= _RATE_FROM_S else ""
        return f"{self}{rate}" if self._unit == "bytes" else f"{self}, {size(self._bytes)}{rate}"

    def __str__(self) -> str:
        of = f" of {amount(self._total, self._unit)}" if self._total and self._done != self._total else ""
        unit = "" if self._unit == "bytes" else f" {_unit(self._total if of else self._done, self._unit)}"
        return f"{amount(self._done, self._unit)}{of}{unit}"


def _unit(number: float, many: str) -> str:
    """ "files", "file" of one; a machine names its units in the plural."""
    one = f"{many[:-3]}y" if many.endswith("ies") else many.removesuffix("s")
    return one if number == 1 else many
