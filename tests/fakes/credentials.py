"""A service account for the fakes: its key file, and the token that the key is exchanged for."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs

from tests.fakes.http_service import Answer

TOKEN = "ya29.fake"
SERVICE_ACCOUNT = "tester@trees-4711.iam.example"


def write_credentials(folder: Path, server: str) -> Path:
    """The key file of a service account, whose tokens come from `server`."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    path = folder / "credentials.json"
    document = {
        "type": "service_account",
        "project_id": "trees-4711",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": SERVICE_ACCOUNT,
        "client_id": "1",
        "token_uri": f"{server}/token",
    }
    path.write_text(json.dumps(document))
    path.chmod(0o600)
    return path


def token_for(body: bytes) -> Answer:
    """The answer to what google-auth posts to a token address: an assertion signed with the key."""
    form = parse_qs(body.decode())
    if form.get("grant_type") != ["urn:ietf:params:oauth:grant-type:jwt-bearer"] or not form.get("assertion"):
        return Answer(400, {"Content-Type": "application/json"}, b'{"error": "invalid_grant"}')
    document = {"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}
    return Answer(200, {"Content-Type": "application/json"}, json.dumps(document).encode())
