"""A security token service for the fakes: what CI proves its identity with becomes an access token that lives five minutes.

The credentials file is of the kind `external_account`, as a job of GitHub Actions or of another cloud has one: it names a
file with the subject token, which whoever runs the job replaces now and then, and the address of this service.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from urllib.parse import parse_qs

from tests.fakes.http_service import Answer, Connection, HttpService

LIFE_S = 300
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


class TokenService:
    """Running while it is entered as a context.

    exchanged   the subject tokens that were given an access token, in their order
    refused     those that were not
    refuses     whether nobody is given one
    """

    def __init__(self, folder: Path) -> None:
        self.exchanged: list[str] = []
        self.refused: list[str] = []
        self._subject_file = folder / "subject.jwt"
        self._lock = threading.Lock()
        self._subject = ""
        self._rotations = 0
        self.refuses = False
        self._tokens: set[str] = set()
        self._used: set[tuple[str, int]] = set()  # and by which thread
        self._service = HttpService(self._serve)
        self._folder = folder
        self.rotate()

    def __enter__(self) -> TokenService:
        self._service.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._service.stop()
        assert self._service.errors == []

    def credentials_file(self, name: str = "ci.json") -> Path:
        path = self._folder / name
        document = {
            "type": "external_account",
            # Of a pool that belongs to no project: for others the library asks Google for the project's name at once.
            "audience": "//iam.googleapis.com/locations/global/workforcePools/ci/providers/ci",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self._service.url_at('127.0.0.1')}/v1/token",
            "credential_source": {"file": str(self._subject_file)},
        }
        path.write_text(json.dumps(document))
        return path

    def rotate(self) -> None:
        """CI has a new proof of its identity; the one before is worth nothing any more."""
        with self._lock:
            self._rotations += 1
            self._subject = f"subject-{self._rotations}"
        self._subject_file.write_text(self._subject)

    def move_subject(self, file: Path) -> None:
        """The login is made anew: the credentials file names another file from now on."""
        self._subject_file = file
        self.rotate()
        self.credentials_file()

    def expire(self) -> None:
        """Five minutes have passed: no access token of before is worth anything."""
        with self._lock:
            self._tokens.clear()

    def is_current(self, header: str) -> bool:
        """Whether a request with this Authorization is served. One without any is a machine's, which has its own."""
        with self._lock:
            return not header or header.removeprefix("Bearer ") in self._tokens

    def is_current_once(self, header: str) -> bool:
        """The same, and the token is used up by it, on the connection whose thread asks this.

        On all of them it would be a race: requests that share a login would use up what the others have just got.
        """
        use = (header.removeprefix("Bearer "), threading.get_ident())
        with self._lock:
            known = not header or (use[0] in self._tokens and use not in self._used)
            self._used.add(use)
            return known

    def _serve(self, connection: Connection) -> None:
        form = parse_qs(connection.read_body().decode())
        (subject,) = form.get("subject_token", [""])
        with self._lock:
            known = form.get("grant_type") == [_EXCHANGE] and subject == self._subject and not self.refuses
            (self.exchanged if known else self.refused).append(subject)
            token = f"ya29.short-lived-{len(self.exchanged)}"
            if known:
                self._tokens.add(token)
        if not known:
            connection.send(Answer(400, {"Content-Type": "application/json"}, b'{"error": "invalid_grant"}'))
            return
        document = {
            "access_token": token,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": LIFE_S,
        }
        connection.send(Answer(200, {"Content-Type": "application/json"}, json.dumps(document).encode()))
