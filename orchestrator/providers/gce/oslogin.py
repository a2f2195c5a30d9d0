"""OS Login: who comes in is decided by Google's accounts, and keys in a machine's metadata open nothing.

Where an organisation enforces it, the key of this computer goes into the profile of the account instead, until the end
of the machine; whoever logs in has the name that the profile gives him. It is asked for with the same login.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from orchestrator.errors import AuthError
from orchestrator.providers.keys import checked_key

from .errors import LOGIN
from .rest import Rest
from .services import Services

ROLE = "roles/compute.osAdminLogin"
PERMISSIONS = ("compute.instances.osAdminLogin", "compute.instances.osLogin")  # one of them is enough


def let_in(rest: Rest, email: str, public_key: str, expires: datetime) -> str:
    """Put the key into the account's profile, until then; twice is once. The name to log in with."""
    body = {"key": checked_key(public_key), "expirationTimeUsec": str(int(expires.timestamp() * 1e6))}
    path = f"v1/users/{_user(email)}:importSshPublicKey?projectId={rest.project}"
    answer = Services(rest).post("oslogin", path, body, doing="take the key of this computer for OS Login")
    return _name(answer.get("loginProfile") or {}, email)


def name(rest: Rest, email: str) -> str:
    """The name to log in with; changes nothing."""
    query = {"projectId": rest.project}
    path = f"v1/users/{_user(email)}/loginProfile"
    return _name(Services(rest).get("oslogin", path, query, doing="show your OS Login profile"), email)


def _user(email: str) -> str:
    if "@" not in email:
        raise AuthError(
            "OS Login needs an account with a name, and this login has none",
            next=f"Log in with yours: {LOGIN}",
        )
    return quote(email, safe="@")


def _name(profile: Mapping[str, Any], email: str) -> str:
    """An account that has never logged in anywhere gets the one that Google makes of its address."""
    accounts = profile.get("posixAccounts") or []
    primary = [account for account in accounts if account.get("primary")] or accounts
    told = str(primary[0].get("username", "")) if primary else ""
    return told or re.sub(r"[^a-z0-9]", "_", email.lower())
