"""Text that somebody else wrote, made safe for a terminal; sizes, times and tables as people write them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from remote.contract.wording import duration, size

__all__ = [
    "about",
    "clean",
    "clean_lines",
    "clock",
    "columns",
    "duration",
    "folded",
    "last_word",
    "moment",
    "price",
    "size",
]

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, screen
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|\Z)"  # OSC, DCS, SOS, PM, APC: titles, clipboards, links
    r"|\x1b[ -/]*[0-~]"
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|[\x90\x98\x9d-\x9f].*?(?:\x9c|\x07|\Z)",
    re.DOTALL,
)
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # controls, direction overrides, halves of characters
LENGTH_MAX = 4000


def clean(text: object) -> str:
    """One line without escape sequences, control characters and marks that reorder a line, of bounded length."""
    if isinstance(text, str) and len(text) <= LENGTH_MAX and text.isascii() and text.isprintable():
        return text  # nearly every line of a long log
    plain = _ESCAPES.sub("", str(text)[: LENGTH_MAX + 1])
    shown = "".join(
        " " if character in "\t\n\r\v\f" else character
        for character in plain
        if character in "\t\n\r\v\f" or unicodedata.category(character) not in _HIDDEN
    )
    return shown if len(shown) <= LENGTH_MAX else shown[:LENGTH_MAX] + "…"


def clean_lines(text: object) -> str:
    """Several lines, each one `clean`."""
    return "\n".join(clean(line) for line in str(text).splitlines())


def columns(rows: Iterable[Sequence[object]], *, indent: str = "", gap: str = "  ") -> list[str]:
    """Rows as lines with their cells below each other; wide characters count as two."""
    from rich.cells import cell_len

    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [
        max(cell_len(row[column]) for row in cells if column < len(row))
        for column in range(max(map(len, cells), default=0))
    ]
    return [
        (
            indent
            + gap.join(cell + " " * (widths[column] - cell_len(cell)) for column, cell in enumerate(row))
        ).rstrip()
        for row in cells
    ]


def folded(
    rows: Sequence[Sequence[object]], width: int | None, *, indent: str = "", gap: str = "  "
) -> list[list[str]]:
    """Each row as lines no wider than the terminal: as many columns as fit, and below them the rest of its cells.

    width   of the terminal; None: there is none, and every row is one line
    """
    from rich.cells import cell_len

    whole = columns(rows, indent=indent, gap=gap)
    if width is None or all(cell_len(line) <= width for line in whole):
        return [[line] for line in whole]
    most = max(map(len, rows))
    kept = most
    while kept > 1 and any(
        cell_len(line) > width for line in columns([row[:kept] for row in rows], indent=indent)
    ):
        kept -= 1
    heads = columns([row[:kept] for row in rows], indent=indent, gap=gap)
    below = indent + "    "
    return [
        [
            *_wrapped(head, width, indent),
            *_wrapped(below + " · ".join(text for cell in row[kept:] if (text := clean(cell))), width, below),
        ]
        for head, row in zip(heads, rows, strict=True)
    ]


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    """Nothing of it is lost: between words, and inside one that is wider than the line."""
    from rich.cells import cell_len, chop_cells

    if cell_len(text) <= width:
        return [text] if text.strip() else []
    lines, room = [""], max(1, width - cell_len(indent))
    for word in text.split():
        for number, part in enumerate(chop_cells(word, room)):
            joined = f"{lines[-1]} {part}".strip()
            if number == 0 and cell_len(joined) <= room:
                lines[-1] = joined
            else:
                lines.append(part)
    return [indent + line for line in lines if line]


def clock(moment: datetime, now: datetime | None = None) -> str:
    """When, in the time of this computer; with the day when it is another."""
    local, today = moment.astimezone(), (now or datetime.now(UTC)).astimezone()
    return f"{local:%H:%M}" if local.date() == today.date() else f"{local:%Y-%m-%d %H:%M}"


def moment(text: str) -> datetime | None:
    """An ISO 8601 time from a document of somebody else; None when it is not one."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def last_word(doubt: str, updated: str) -> str:
    """What is known of a run that can't be relied upon: "its machine is gone, no word since 14:25"."""
    when = moment(updated)
    return f"{doubt}, no word since {clock(when)}" if doubt and when else doubt


def more_than(state: str, message: str) -> str:
    """What a run says of its state, where that is more than the state: not "cancelled" of one that is."""
    return "" if message == state.lower() else message


def price(dollars: float) -> str:
    if dollars == 0:
        return "free"
    return f"${dollars:.2f}" if dollars >= 0.01 else "under $0.01"


def paid(dollars: float, per_hour: float) -> str:
    """What a stay on a machine cost: free only where nothing is paid, however short it was."""
    return price(dollars) if dollars or not per_hour else "under $0.01"


def about(dollars: float, per_hour: float = 0) -> str:
    """An estimate, in words."""
    shown = paid(dollars, per_hour)
    return f"about {shown}" if shown.startswith("$") else shown
