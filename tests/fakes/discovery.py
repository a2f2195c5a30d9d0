"""Google's own description of a REST API as the oracle of a fake: which calls there are, what they may be asked.

Read from the discovery documents inside google-api-python-client. It knows paths, query parameters and the shape of
bodies; it does not know which of them are required, nor what they mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

import jsonschema

_KEPT = {"type", "properties", "items", "enum", "pattern", "additionalProperties", "$ref"}


class Unexpected(Exception):
    """What the API would answer with 400 (or 404 for an unknown path)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Call:
    """One request, recognised."""

    name: str  # "objects.get"
    path: Mapping[str, str]  # values of the path parameters, decoded
    query: Mapping[str, str]


@dataclass(frozen=True)
class _Method:
    name: str
    verb: str
    path: re.Pattern[str]
    places: Mapping[str, Mapping[str, Any]]  # parameters of the path
    parameters: Mapping[str, Mapping[str, Any]]  # of the query
    request: str | None
    response: str | None


@cache
def discovery(document: str) -> Discovery:
    """The description of an API: "storage.v1". Read once, as it does not change."""
    return Discovery(document)


class Discovery:
    def __init__(self, document: str) -> None:
        folder = files("googleapiclient") / "discovery_cache" / "documents"
        self._document: dict[str, Any] = json.loads((folder / f"{document}.json").read_text())
        self._methods = list(_methods(self._document["resources"]))
        self._by_name = {method.name: method for method in self._methods}
        schemas = {name: _schema(schema) for name, schema in self._document["schemas"].items()}
        self._validators = {
            name: jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schemas})
            for name in schemas
        }

    def call(self, verb: str, path: str, query: Mapping[str, list[str]], *, more: set[str]) -> Call:
        """The call that a request is; `path` is still encoded and relative to the API, `more` are further parameters."""
        for method in self._methods:
            match = method.path.fullmatch(path)
            if match and method.verb == verb:
                known = {**self._document["parameters"], **method.parameters}
                for name, values in query.items():
                    if name not in more:
                        _check(method.name, name, values, known)
                parameters = {name: unquote(value) for name, value in match.groupdict().items()}
                for name, value in parameters.items():
                    if not re.fullmatch(method.places.get(name, {}).get("pattern", ".*"), value):
                        raise Unexpected(400, f"Invalid value for field '{name}': '{value}'.")
                return Call(method.name, parameters, {name: values[-1] for name, values in query.items()})
        raise Unexpected(404, f"no method {verb} {path}")

    def check_body(self, call: Call, body: Any) -> None:
        schema = self._by_name[call.name].request
        if schema is None:
            raise Unexpected(400, f"{call.name} takes no body")
        for error in self._validators[schema].iter_errors(body):
            raise Unexpected(400, f"{call.name}: {error.json_path}: {error.message[:300]}")

    def fields(self, schema: str) -> list[str]:
        """The names that an object of this kind may hold."""
        return list(self._document["schemas"][schema]["properties"])

    def mistake(self, call: Call, answer: Any) -> str:
        """What in the answer of a fake is not as the service would write it; "" when all is."""
        schema = self._by_name[call.name].response
        for error in self._validators[schema].iter_errors(answer) if schema else ():
            return f"answer of {call.name}: {error.json_path}: {error.message[:300]}"
        return ""


def _methods(resources: Mapping[str, Any], parent: str = "") -> Iterator[_Method]:
    for resource, entry in resources.items():
        for name, method in entry.get("methods", {}).items():
            yield _method(f"{parent}{resource}.{name}", method)
        yield from _methods(entry.get("resources", {}), f"{parent}{resource}.")


def _method(name: str, method: Mapping[str, Any]) -> _Method:
    path = method["path"]
    value = "[^/]+"
    if "{+" in path:  # one parameter that holds slashes; flatPath spells them, and verbs stand behind a colon
        path, value = method["flatPath"], "[^/:]+"
    pattern = re.sub(r"\\\{(\w+)\\\}", rf"(?P<\1>{value})", re.escape(path))
    known = method.get("parameters", {})
    return _Method(
        name,
        method["httpMethod"],
        re.compile(pattern),
        {key: value for key, value in known.items() if value["location"] == "path"},
        {key: value for key, value in known.items() if value["location"] == "query"},
        method.get("request", {}).get("$ref"),
        method.get("response", {}).get("$ref"),
    )


def _check(method: str, name: str, values: list[str], known: Mapping[str, Mapping[str, Any]]) -> None:
    parameter = known.get(name)
    if parameter is None:
        raise Unexpected(400, f"{method}: unknown parameter {name!r}")
    if len(values) > 1 and not parameter.get("repeated"):
        raise Unexpected(400, f"{method}: parameter {name!r} given twice")
    for value in values:
        fits = {"integer": r"-?\d+", "boolean": r"true|false|True|False"}.get(parameter["type"])
        if parameter.get("format") in {"int64", "uint64"}:
            fits = r"-?\d+"
        if (fits and not re.fullmatch(fits, value)) or value not in parameter.get("enum", [value]):
            raise Unexpected(400, f"{method}: parameter {name!r} may not be {value!r}")


def _schema(node: Any) -> Any:
    """A schema of the discovery dialect as JSON Schema: strict about names, lenient about how an int64 is written."""
    if node.get("type") == "any":
        return {}
    if node.get("format") in {"int64", "uint64"}:
        return {"type": ["string", "integer"], "pattern": r"^-?\d+$"}
    result = {name: value for name, value in node.items() if name in _KEPT}
    if "pattern" in node:  # JSON Schema looks for it anywhere
        result["pattern"] = f"^(?:{node['pattern']})$"
    if "$ref" in node:
        return {"$ref": f"#/$defs/{node['$ref']}"}
    if "properties" in node:
        result["properties"] = {name: _schema(value) for name, value in node["properties"].items()}
        result.setdefault("additionalProperties", False)
    if isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _schema(node["additionalProperties"])
    if "items" in node:
        result["items"] = _schema(node["items"])
    return result
