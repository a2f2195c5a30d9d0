"""Rows of which there may be a million: kept in columns, made into objects when they are looked at.

A row is a NamedTuple or a frozen dataclass, and a `Form` says which field is kept how. Whoever passes over all rows
asks for the columns that it needs: `column` for their values one by one, `numbers`, `codes` and `hashes` for numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter, le
from typing import Any, Generic, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from orchestrator.datasets.columns.column import AT_ONCE, Column, Indices
from orchestrator.datasets.columns.hashes import Digests, Hashes
from orchestrator.datasets.columns.numbers import Numbers
from orchestrator.datasets.columns.words import Words

T = TypeVar("T")
_KEPT = 2  # changes with what a column of any kind writes


class Form(Generic[T]):
    """How the rows of a kind are kept: the column of each field, in the order in which the kind takes them."""

    def __init__(self, kind: Callable[..., T], **columns: type[Column]) -> None:
        self.kind = kind
        self.columns = columns
        self.values = attrgetter(*columns)

    def rows(self, rows: Iterable[T] = ()) -> Rows[T]:
        """Kept in columns; what already is, stays as it is."""
        if isinstance(rows, Rows):
            return rows
        found = Rows(self, {name: column() for name, column in self.columns.items()})
        found.extend(rows)
        return found

    def again(self, pieces: Iterator[Any]) -> Rows[T]:
        """What `Rows.pieces` came from."""
        return Rows(self, {name: column.again(*next(pieces)) for name, column in self.columns.items()})

    def __str__(self) -> str:
        """Changes with how rows are kept on the disk."""
        columns = ", ".join(f"{name} {column.__name__}" for name, column in self.columns.items())
        return f"columns {_KEPT}: {columns}"


class Rows(Sequence[T]):
    """`columns` holds those of the form at least."""

    def __init__(self, form: Form[T], columns: Mapping[str, Any]) -> None:
        self.form = form
        self.columns: Mapping[str, Any] = {name: columns[name] for name in form.columns}  # Column by field

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> Rows[T]: ...
    def __getitem__(self, at: int | slice) -> T | Rows[T]:
        if isinstance(at, slice):
            return self.take(np.arange(len(self))[at])
        return self.form.kind(*[column[at] for column in self.columns.values()])

    def __iter__(self) -> Iterator[T]:
        return map(self.form.kind, *self.columns.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __hash__(self) -> int:
        return len(self)

    def tuples(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """The values of these fields, row by row; of all of them by default."""
        return zip(*[self.columns[name] for name in names or self.columns], strict=True)

    def picked(self, at: Indices, *names: str) -> Iterator[tuple[Any, ...]]:
        """The same of some rows."""
        return zip(*[self.columns[name].take(at) for name in names], strict=True)

    def extend(self, rows: Iterable[T]) -> None:
        todo = iter(rows)
        while some := list(islice(todo, AT_ONCE)):
            for column, values in zip(
                self.columns.values(), zip(*map(self.form.values, some), strict=True), strict=True
            ):
                column.extend(values)

    def take(self, at: Indices) -> Rows[T]:
        """These rows, in this order."""
        return Rows(self.form, {name: column.take(at) for name, column in self.columns.items()})

    def sorted_by(self, name: str) -> Rows[T]:
        """In the order of a field; without a copy where they are."""
        column = self.columns[name]
        if all(map(le, column, islice(column, 1, None))):
            return self
        values = list(column)
        return self.take(np.array(sorted(range(len(values)), key=values.__getitem__), dtype=np.int64))

    def but(self, **columns: Column) -> Rows[T]:
        """The same rows with other columns in the place of some."""
        return Rows(self.form, {**self.columns, **columns})

    def joined(self, other: Rows[T]) -> Rows[T]:
        """With the rows of another one behind."""
        columns = {name: column.joined(other.columns[name]) for name, column in self.columns.items()}
        return Rows(self.form, columns)

    def pieces(self) -> Iterator[tuple[Any, ...]]:
        """What `marshal` writes."""
        return (column.kept() for column in self.columns.values())

    def numbers(self, name: str) -> Indices:
        return cast(Numbers, self.columns[name]).array()

    def codes(self, name: str) -> tuple[NDArray[np.int32], list[Any]]:
        """Of words: the code of each row, and the words by code."""
        words = cast(Words, self.columns[name])
        return words.array(), words.words

    def hashes(self, name: str) -> Digests:
        return cast(Hashes, self.columns[name]).array()


def column(rows: Sequence[Any], name: str) -> Iterable[Any]:
    """The values of one field of any rows."""
    return rows.columns[name] if isinstance(rows, Rows) else [getattr(row, name) for row in rows]
