"""The tree that was found beside the one that was expected, for a person who wonders why a folder is no dataset."""

from __future__ import annotations

from orchestrator.datasets.folder.names import decode, shown
from orchestrator.datasets.folder.walk import Folder
from remote.contract.wording import count

_LINES_MAX = 14
_WIDTH_MAX = 40
_FOLDERS_MAX = 3  # drawn of each folder
_LEVELS_MAX = 4
_EXPECTED = (
    "photos/",
    "  train/",
    "    ants/    *.jpg",
    "    bees/    *.jpg",
    "  val/       (or leave it out)",
    "    ants/    *.jpg",
    "    bees/    *.jpg",
    "",
    "or photos/",
    "  ants/      *.jpg",
    "  bees/      *.jpg",
)


def beside(top: Folder) -> str:
    """Two columns of plain text."""
    found = _drawn(top)
    width = max(map(len, ["found:", *found])) + 4
    rows = max(len(found), len(_EXPECTED))
    left = ["found:", *found] + [""] * (rows - len(found))
    right = ["expected:", *_EXPECTED] + [""] * (rows - len(_EXPECTED))
    return "\n".join(f"{a:<{width}}{b}".rstrip() for a, b in zip(left, right, strict=True))


def _drawn(top: Folder) -> list[str]:
    lines = [f"{_short(shown(top.name))}/", *_inside(top, 1)]
    if len(lines) > _LINES_MAX:
        lines = [*lines[: _LINES_MAX - 1], "  ..."]
    return lines if len(lines) > 1 else [*lines, "  (empty)"]


def _inside(folder: Folder, level: int) -> list[str]:
    indent = "  " * level
    lines = []
    for child in folder.folders[:_FOLDERS_MAX]:
        lines.append(f"{indent}{_short(shown(child.name))}/")
        if level < _LEVELS_MAX:
            lines += _inside(child, level + 1)
    if len(folder.folders) > _FOLDERS_MAX:
        lines.append(f"{indent}... and {len(folder.folders) - _FOLDERS_MAX} more folders")
    for what, paths in (
        ("image", [file.path for file in folder.files]),
        ("other file", [decode(item.path) for item in folder.set_aside]),
    ):
        if paths:
            example = _short(shown(paths[0].rpartition(b"/")[2]))
            lines.append(f"{indent}{count(len(paths), what)}: {example}" + (" ..." if len(paths) > 1 else ""))
    return lines


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH_MAX else text[: _WIDTH_MAX - 3] + "..."
