"""What `-v` shows: every request that a library of ours sends, secrets removed."""

from __future__ import annotations

import logging
import re
import sys

# Those that say a line per request; the others are silent or drown it.
_LOGGERS = (
    "orchestrator",
    "urllib3.connectionpool",
    "docker",
    "paramiko.transport",
    "google.auth",
    "asyncssh",
)

_SECRETS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?i)(?<=bearer )[\w.~+/=-]+"),
    re.compile(r"\bya29\.[\w.-]+"),  # a Google access token
    re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"),  # a JSON web token
    re.compile(
        r"(?i)(?<=[?&])((?:upload_id|access_token|refresh_token|client_secret|assertion|key|sig|signature"
        r"|x-goog-signature|x-goog-credential)=)[^&\s\"']+"
    ),
    re.compile(
        r"(?i)(['\"]?(?:authorization|password|private_key|access_token|refresh_token|client_secret|id_token)['\"]?"
        r"\s*[:=]\s*)(?:bearer\s+|basic\s+)?['\"]?[^\s,'\"}]+['\"]?"
    ),
)


def log_requests() -> None:
    """Send the libraries' debug lines to stderr, each through `redact`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Redacting("%(asctime)s %(name)s %(message)s", datefmt="%H:%M:%S"))
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG)
        logger.addHandler(handler)
        logger.propagate = False


def redact(text: str) -> str:
    """The text without keys, tokens, passwords and signed addresses."""
    for pattern in _SECRETS:
        text = pattern.sub(lambda found: f"{found[1] if _labelled(found) else ''}[removed]", text)
    return text


def _labelled(found: re.Match[str]) -> bool:
    return bool(found.re.groups) and bool(found[1]) and not found[1].startswith("-----")


class _Redacting(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        from orchestrator.render.text import clean_lines

        return clean_lines(redact(super().format(record)))
