"""How a container reaches the store: what is mounted where, and whose files its user writes.

A folder store is mounted read-only at /srv/tlvm-store, with its `runs/` and `checkpoints/` writable on top: as much as
the service account of a cloud machine may do. The container's user gets the number of the folder's owner, so what the
machine writes is the user's own, and the other way round.

Where that owner is root, the machine does not become root: its user is number 1000, and the folder is opened to group
1000 instead (the store keeps that group and those bits in the folders it makes later).
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from docker.types import Mount

from orchestrator.errors import CloudError, ConfigError
from remote.contract import layout
from remote.contract.run_spec import StoreRef

STORE = "/srv/tlvm-store"
CREDENTIALS = "/srv/tlvm-credentials.json"
OWN_CREDENTIALS = (
    "/etc/tlvm/credentials.json"  # the entrypoint's copy for `tlvm`, of a file that only root may read
)
WRITABLE = (layout.RUNS, layout.CHECKPOINTS)
SHARED_ID = 1000


@dataclass(frozen=True)
class StoreAccess:
    ref: StoreRef  # as the machine sees it
    mounts: list[Mount]
    uid: int
    gid: int
    environment: dict[str, str]


def check(store: StoreRef) -> None:
    """ConfigError when a container can't use this store. Changes nothing."""
    if not store.url.startswith("gs://"):
        if not Path(store.url).is_absolute():
            raise ConfigError(
                f"The store {store.url} is neither gs://BUCKET nor the absolute path of a folder",
                next="Set url in [store] of tlvm.toml, or the environment variable TLVM_STORE_URL.",
            )
        return
    if store.credentials_file is None and store.endpoint is None:
        raise ConfigError(
            f"A container can't open {store.url}: it has no Google identity of its own",
            next="Name the file of a service account in store.credentials_file, or use a folder as the store.",
        )
    if store.credentials_file is not None and not Path(store.credentials_file).is_file():
        raise ConfigError(
            f"There is no credentials file {store.credentials_file}",
            next="Correct store.credentials_file.",
        )


def grant(store: StoreRef) -> StoreAccess:
    """Prepare the store for a container; makes the folders that are mounted writable."""
    try:
        return _bucket(store) if store.url.startswith("gs://") else _folder(Path(store.url))
    except OSError as error:
        raise CloudError(
            f"The store {store.url} could not be prepared for a container: {error}",
            next="Check who owns that folder and whether its disk is full.",
        ) from error


def _folder(root: Path) -> StoreAccess:
    for name in WRITABLE:
        (root / name).mkdir(parents=True, exist_ok=True)
    uid, gid = _numbers(root)
    if os.geteuid() == 0:
        _open_to_group(root, gid)
    mounts = [Mount(STORE, str(root.resolve()), type="bind", read_only=True)]
    mounts += [
        Mount(f"{STORE}/{name}".rstrip("/"), str((root / name).resolve()), type="bind") for name in WRITABLE
    ]
    return StoreAccess(StoreRef(STORE), mounts, uid, gid, {})


def _bucket(store: StoreRef) -> StoreAccess:
    """No credentials of this computer but the named file get in."""
    if store.credentials_file is None:
        uid, gid = _numbers(Path.home())
        return StoreAccess(store, [], uid, gid, {})
    source = Path(store.credentials_file).resolve()
    uid, gid = _numbers(source)
    mounts = [Mount(CREDENTIALS, str(source), type="bind", read_only=True)]
    if source.stat().st_uid == uid:
        return StoreAccess(replace(store, credentials_file=CREDENTIALS), mounts, uid, gid, {})
    copied = {"TLVM_CREDENTIALS": CREDENTIALS}
    return StoreAccess(replace(store, credentials_file=OWN_CREDENTIALS), mounts, uid, gid, copied)


def _numbers(path: Path) -> tuple[int, int]:
    """The user and group of the container: the owner's, else the caller's; never root's."""
    found = path.stat()
    if found.st_uid != 0:
        return found.st_uid, found.st_gid or SHARED_ID
    return os.geteuid() or SHARED_ID, os.getegid() or SHARED_ID


def _open_to_group(root: Path, gid: int) -> None:
    """Let a group read the whole store and add to the writable folders; what is made later inherits it.

    Descriptors, not paths: a machine that writes into runs/ at this moment must not lead root elsewhere by a link.
    """
    for path, _, files, folder in os.fwalk(root):
        top = Path(path).relative_to(root).parts[:1]
        writable = bool(top) and f"{top[0]}/" in WRITABLE
        bits = stat.S_ISGID | stat.S_IRGRP | stat.S_IXGRP | (stat.S_IWGRP if writable else 0)
        _share(folder, gid, bits)
        lockable = writable and Path(path).name == ".tmp"  # a machine takes the lock that root made
        for name in files:
            with suppress(FileNotFoundError):  # a file that was just being written
                if stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
                    try:
                        _share(file, gid, stat.S_IRGRP | (stat.S_IWGRP if lockable else 0))
                    finally:
                        os.close(file)


def _share(descriptor: int, gid: int, bits: int) -> None:
    found = os.fstat(descriptor)
    if found.st_gid != gid or found.st_mode & bits != bits:
        os.fchown(descriptor, -1, gid)
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode) | bits)
