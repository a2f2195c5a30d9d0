"""Public keys as OpenSSH writes them: what a provider gives to a machine is checked before it travels."""

from __future__ import annotations

import re

from orchestrator.errors import ConfigError

_PUBLIC_KEY = re.compile(r"((?:ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2})(?: [^\r\n]*)?\n?")


def checked_key(line: str) -> str:
    """Kind and key of one line in OpenSSH's format, without options or comment; ConfigError when it is none."""
    found = _PUBLIC_KEY.fullmatch(line)
    if found is None:
        raise ConfigError(
            f"This is not a public key in OpenSSH's format: {line[:60]!r}",
            next='It looks like "ssh-ed25519 AAAA... comment".',
        )
    return found[1]
