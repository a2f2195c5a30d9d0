"""Key pairs of this computer: one for each machine, and never taken anywhere else."""

from __future__ import annotations

import os
from pathlib import Path


def new_key(path: Path, *, comment: str = "tlvm") -> str:
    """Make an ed25519 key pair: the private half becomes the file `path` (mode 0600), the public line is returned.

    FileExistsError   when `path` is there: a key is never written over, because it may be the only way in.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = Ed25519PrivateKey.generate()
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    try:
        os.link(beside, path)  # unlike a rename, refuses to replace
    finally:
        beside.unlink()
    return f"{key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} {comment}"
