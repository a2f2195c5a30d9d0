"""Compute Engine over plain HTTP: what a person waits for must not wait for Google's client to be imported.

`google.cloud.compute_v1` costs 2 to 4 seconds and 150 MB; google-auth with requests 0.3 seconds. Reading, listing,
deleting and operations are a URL each, so they go this way; the tests check each of them with Google's discovery
document. Paths are relative to the project: "zones/us-central1-a/instances/NAME".
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import google.auth
import requests
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession, Request
from google.oauth2.credentials import Credentials as UserCredentials
from requests.adapters import HTTPAdapter

from orchestrator.config import GceSettings
from orchestrator.errors import ConfigError
from orchestrator.providers.base import Unseen

from .errors import no_answer, of_answer, translated

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
CONNECTIONS = 16  # as many threads may ask at once
TIMEOUT_S = 30.0
LONG_S = 150.0  # `wait` of an operation answers within two minutes
_PUBLIC = "https://compute.googleapis.com"
_PAGE = 500


class Rest:
    """One project. May be used by up to CONNECTIONS threads at once. One try each: retrying is not decided here."""

    def __init__(self, settings: GceSettings, *, timeout_s: float = TIMEOUT_S) -> None:
        self._settings = settings
        self._timeout_s = timeout_s

    @cached_property
    def project(self) -> str:
        """AuthError when nobody is logged in, ConfigError when no project is named anywhere."""
        named = self._settings.project or os.environ.get("GOOGLE_CLOUD_PROJECT") or self._login[1]
        if not named:
            raise ConfigError(
                "No project of Google Cloud is named",
                next='Name it in tlvm.toml, [gce] project = "...", or: gcloud config set project PROJECT',
            )
        return named

    @property
    def endpoint(self) -> str:
        return (self._settings.endpoint or _PUBLIC).rstrip("/")

    @property
    def is_elsewhere(self) -> bool:
        """Whether another server than Google's is spoken to."""
        return self._settings.endpoint is not None

    @property
    def credentials(self) -> Credentials:
        return self._login[0]

    @property
    def counts_for_no_project(self) -> bool:
        """Whether this is a person's login that names no project: then some of Google's APIs refuse its requests."""
        is_persons = isinstance(self.credentials, UserCredentials)
        return is_persons and not getattr(self.credentials, "quota_project_id", None)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """NotFoundError when there is none."""
        return self.send("GET", path, query=query)

    def find(self, path: str, **query: str) -> dict[str, Any] | None:
        """The same, None when there is none."""
        doing = f"show {path}"
        with self._border(doing):
            answer = self._ask("GET", path, query, None)
        if answer.status_code == 404:
            return None
        return self._said(answer, doing)

    def items(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """Everything of a list, page by page."""
        token = ""
        while True:
            page = self.send("GET", path, query=_paged(query, token), doing=f"list {path}")
            yield from page.get("items", [])
            token = page.get("nextPageToken", "")
            if not token:
                return

    def aggregated(self, kind: str, **query: str) -> list[dict[str, Any]]:
        """Everything of a kind ("instances") in every zone or region, from every page.

        Unseen when a place can't be asked: a machine that is not seen must not pass as gone.
        """
        found, silent = self.seen(kind, **query)
        if silent:
            raise Unseen(f"Google Cloud can't say which {kind} are in {', '.join(silent)}", places=silent)
        return found

    def seen(self, kind: str, **query: str) -> tuple[list[dict[str, Any]], list[str]]:
        """The same of the places that answer, and those that don't."""
        token, found, silent = "", list[dict[str, Any]](), set[str]()
        while True:
            page = self.send(
                "GET", f"aggregated/{kind}", query=_paged(query, token), doing=f"list all {kind}"
            )
            for scope in (page.get("items") or {}).values():
                found += scope.get(kind, [])
            silent |= _unreachable(page)
            token = page.get("nextPageToken", "")
            if not token:
                return found, sorted(silent)

    def send(
        self,
        verb: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        doing: str = "",
        region: str = "",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """The answer as JSON; one of our errors when it is not success.

        doing     what is asked for, in the infinitive, as the error says it
        region    whose quota is meant when one is used up
        """
        doing = doing or f"{verb.lower()} {path}"
        with self._border(doing):
            answer = self._ask(verb, path, query or {}, body, timeout_s)
        return self._said(answer, doing, region)

    def outside(
        self, verb: str, url: str, *, body: Mapping[str, Any] | None = None, doing: str
    ) -> dict[str, Any]:
        """A request to another API of Google, with the same login."""
        with self._border(doing):
            answer = self._session.request(verb, url, json=body, timeout=self._timeout_s)
        return self._said(answer, doing)

    def account(self) -> str:
        """The name of the account; AuthError when nobody is logged in."""
        for attribute in ("service_account_email", "account"):
            name = str(getattr(self.credentials, attribute, "") or "")
            if "@" in name:
                return name
        return self._whose_token() or "a login without a name"

    def _whose_token(self) -> str:
        """The address of the account behind the login, as Google says; "" when it does not, or nobody is logged in."""
        credentials = self.credentials
        with self._border("say who you are"):
            if not credentials.valid:
                credentials.refresh(Request())
            token = getattr(credentials, "token", None)
            if not token:
                return ""
            host = self.endpoint if self.is_elsewhere else "https://oauth2.googleapis.com"
            # In the body: an address may be logged.
            answer = requests.post(f"{host}/tokeninfo", data={"access_token": token}, timeout=self._timeout_s)
        try:
            return str(answer.json().get("email", ""))
        except (ValueError, AttributeError):
            return ""

    @cached_property
    def _login(self) -> tuple[Credentials, str]:
        """Credentials, and the project that comes with them."""
        file, endpoint = self._settings.credentials_file, self._settings.endpoint or ""
        with self._border("log in"):
            try:
                if file is None and endpoint.startswith("http://"):
                    return AnonymousCredentials(), ""
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # of files from strangers
                    warnings.filterwarnings("ignore", "Your application has authenticated")  # doctor tells it
                    if file is not None:
                        path = str(file.expanduser())
                        found, project = google.auth.load_credentials_from_file(path, scopes=SCOPES)
                    else:
                        found, project = google.auth.default(scopes=SCOPES)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"The credentials file {file} can't be used",
                    detail=str(error),
                    next="Change gce.credentials_file.",
                ) from None
        return found, project or ""

    @cached_property
    def _session(self) -> AuthorizedSession:
        session = AuthorizedSession(self.credentials)
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=CONNECTIONS))
        return session

    def _ask(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None,
        timeout_s: float | None = None,
    ) -> requests.Response:
        url = f"{self.endpoint}/compute/v1/projects/{self.project}" + (f"/{path}" if path else "")
        answer: requests.Response = self._session.request(
            verb, url, params=dict(query), json=body, timeout=timeout_s or self._timeout_s
        )
        return answer

    @staticmethod
    def _said(answer: requests.Response, doing: str, region: str = "") -> dict[str, Any]:
        if answer.status_code >= 300:
            raise translated(of_answer(answer), doing, region=region)
        try:
            said: dict[str, Any] = answer.json()
        except ValueError as error:
            raise no_answer(requests.exceptions.ContentDecodingError(str(error)), doing) from None
        return said

    @staticmethod
    @contextmanager
    def _border(doing: str) -> Iterator[None]:
        try:
            yield
        except (requests.RequestException, GoogleAuthError, ConnectionError, TimeoutError) as error:
            raise no_answer(error, doing) from error


def _unreachable(page: Mapping[str, Any]) -> set[str]:
    """Zones or regions that gave no answer, in either of the two ways in which the API says so."""
    listed = [str(name).rpartition("/")[2] for name in page.get("unreachables") or []]
    warned = [
        scope.rpartition("/")[2]
        for scope, found in (page.get("items") or {}).items()
        if (found.get("warning") or {}).get("code") == "UNREACHABLE"
    ]
    return {*listed, *warned}


def _paged(query: Mapping[str, str], token: str) -> dict[str, str]:
    return {"maxResults": str(_PAGE), **query, **({"pageToken": token} if token else {})}
