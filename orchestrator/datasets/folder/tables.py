"""Tables that users write: CSV with a header, separated by commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import DataError, NotFoundError

_ALSO_CALLED = {
    "path": ("path", "file", "filename", "file_name", "image", "image_id", "id"),
    "label": ("label", "class", "class_name", "target"),
    "split": ("split", "set", "subset"),
    "group": ("group", "patient", "patient_id", "slide", "slide_id", "video", "video_id", "subject"),
}


@dataclass(frozen=True)
class Row:
    line: int
    cells: Mapping[str, str]  # by our name of the column; stripped


def rows(table: Path, *, needed: Sequence[str]) -> list[Row]:
    """The rows of a table, whose columns may be called by one of several names.

    NotFoundError   no such table
    DataError       not text, a column is missing, a row is short or lacks a needed cell
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise NotFoundError(f"There is no table {table}", next="Check the path.") from None
    except OSError as error:
        raise DataError(
            f"The table {table} can't be read", detail=str(error.strerror), next="Check its permissions."
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"The table {table} is not UTF-8 text", next="Save it as CSV, UTF-8.") from None
    try:
        return _parsed(table.name, text, needed)
    except csv.Error as error:
        raise DataError(
            f"The table {table.name} can't be read as CSV",
            detail=str(error),
            next="Look for a quotation mark without its other half, or save it anew as CSV, UTF-8.",
        ) from None


def _parsed(name: str, text: str, needed: Sequence[str]) -> list[Row]:
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns = _columns(name, next(reader, []), needed)
    found = []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        row = {column: cells[at].strip() for column, at in columns.items() if at < len(cells)}
        if missing := [column for column in needed if not row.get(column)]:
            raise DataError(
                f"Line {reader.line_num} of {name} says no {missing[0]}",
                next="Complete it, or remove the line.",
            )
        found.append(Row(reader.line_num, row))
    if not found:
        raise DataError(f"The table {name} has no rows", next="Write one line for each image.")
    return found


def _columns(table: str, header: Sequence[str], needed: Sequence[str]) -> dict[str, int]:
    called = {cell.strip().lower(): at for at, cell in reversed(list(enumerate(header)))}
    columns = {
        column: next(called[name] for name in names if name in called)
        for column, names in _ALSO_CALLED.items()
        if any(name in called for name in names)
    }
    if missing := [column for column in needed if column not in columns]:
        raise DataError(
            f"The table {table} has no column {missing[0]}",
            detail=f"Its first line: {', '.join(header)[:200]}",
            next=f"The first line names the columns: {', '.join(needed)}",
        )
    return columns
