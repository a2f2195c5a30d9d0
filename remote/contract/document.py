"""JSON documents that two halves of different age exchange: strict when read, replaced whole when written."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import tempfile
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
# Metadata of a field that came later than its document: it is written where it says something, so that a bundle of
# before it still reads the spec of its own run.
LATER = {"later": True}


class ContractError(ValueError):
    """A document that is not what it should be; the message names the document and the field."""


def encode(document: Any) -> str:
    """A dataclass as JSON text with sorted keys, a line per field; a `LATER` field that is empty is left out."""
    return json.dumps(_plain(document), indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def decode(kind: type[T], text: str | bytes, *, what: str) -> T:
    """Read a dataclass from JSON: every field known, of its type, and there unless it has a default.

    what            names the document in errors ("run spec runs/x/spec.json")
    ContractError   for anything else, a newer `schema` included
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{what}: not JSON ({error})") from None
    return typing.cast(T, _build(kind, data, what))


def write(path: Path, document: Any, *, mode: int = 0o644) -> None:
    """Write a dataclass beside `path`, then replace it: a reader sees the old or the new one."""
    write_text(path, encode(document), mode=mode)


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write text beside `path`, then replace it; on the disk before this returns."""
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).chmod(mode)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _plain(document: Any) -> dict[str, Any]:
    data = dataclasses.asdict(document)
    for field in dataclasses.fields(document):
        value = getattr(document, field.name)
        if field.metadata == LATER and not value:
            del data[field.name]
        elif dataclasses.is_dataclass(value):
            data[field.name] = _plain(value)
    return data


def _build(kind: Any, data: Any, what: str) -> Any:
    if not isinstance(data, dict):
        raise ContractError(f"{what}: expected an object, found {type(data).__name__}")
    fields, hints = _shape(kind)
    schema = fields.get("schema")
    if schema is not None and not _is_readable(data.get("schema"), schema.default):
        found = str(data.get("schema"))[:40]
        raise ContractError(
            f"{what}: schema {found!r} is not the {schema.default} of this version of tlvm; use the version that wrote it"
        )
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise ContractError(f"{what}: unknown field {unknown[0][:80]!r}")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _value(hints[name], data[name], f"{what}: {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ContractError(f"{what}: field {name!r} is missing")
    try:
        return kind(**values)
    except ValueError as error:
        raise ContractError(f"{what}: {error}") from None


def _is_readable(found: object, ours: object) -> bool:
    """Ours, or an older one: what has come since has a default, and nothing is ever renamed."""
    if not isinstance(found, int) or isinstance(found, bool) or not isinstance(ours, int):
        return found == ours
    return 1 <= found <= ours


@functools.cache
def _shape(kind: Any) -> tuple[dict[str, dataclasses.Field[Any]], dict[str, Any]]:
    """Fields and types; kept, since working them out takes most of the time of reading a long manifest."""
    return {field.name: field for field in dataclasses.fields(kind)}, typing.get_type_hints(kind)


def _value(hint: Any, data: Any, what: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        if data is None:
            return None
        return _value(next(arg for arg in typing.get_args(hint) if arg is not type(None)), data, what)
    if origin is typing.Literal:
        if data not in typing.get_args(hint):
            raise ContractError(
                f"{what}: {str(data)[:80]!r} is none of {', '.join(map(str, typing.get_args(hint)))}"
            )
        return data
    if origin in (list, tuple):
        if not isinstance(data, list):
            raise ContractError(f"{what}: expected a list, found {type(data).__name__}")
        items = [_value(typing.get_args(hint)[0], item, f"{what}[{i}]") for i, item in enumerate(data)]
        return items if origin is list else tuple(items)
    if origin is dict:
        if not isinstance(data, dict):
            raise ContractError(f"{what}: expected an object, found {type(data).__name__}")
        return {
            str(key): _value(typing.get_args(hint)[1], value, f"{what}.{key}") for key, value in data.items()
        }
    if dataclasses.is_dataclass(hint):
        return _build(hint, data, what)
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, hint) or (isinstance(data, bool) and hint is not bool):
        raise ContractError(f"{what}: expected {hint.__name__}, found {type(data).__name__}")
    return data
