"""Piped to `python3 - HASH TAR` on a machine: unpack a bundle into ~/.tlvm/bundles/HASH, once and whole.

Python 3.8 and standard library only: no pip, no virtual environment, no index. The wheels are zip files whose content
goes into site/. READY is written last and the folder renamed into place, so two laptops may do this at once.
"""

import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath


def install(bundle, tar):
    """The folder of the bundle; the tar is removed. SystemExit says what is wrong with it."""
    bundles = Path.home() / ".tlvm" / "bundles"
    target = bundles / bundle
    try:
        if not (target / "READY").exists():
            if sha256(tar) != bundle:
                raise SystemExit("The bundle was damaged on its way: its hash is another one")
            beside = Path(tempfile.mkdtemp(prefix="." + bundle[:12] + ".", dir=str(bundles)))
            try:
                unpack(tar, beside)
                put_in_place(beside, target)
            finally:
                shutil.rmtree(str(beside), ignore_errors=True)
    finally:
        tar.unlink()
    return target


def unpack(tar, folder):
    with tarfile.open(str(tar)) as archive:
        for member in archive:
            if not member.isfile():
                raise SystemExit("The bundle holds something that is not a file: " + member.name[:80])
            write(archive.extractfile(member), inside(folder, member.name))
    site = folder / "site"
    site.mkdir(exist_ok=True)
    wheels = folder / "wheels"
    for wheel in sorted(wheels.glob("*.whl")):
        unpack_wheel(wheel, site)
    shutil.rmtree(str(wheels), ignore_errors=True)
    (folder / "READY").touch()


def unpack_wheel(wheel, site):
    with zipfile.ZipFile(str(wheel)) as archive:
        for entry in archive.infolist():
            if entry.is_dir():
                continue
            parts = PurePosixPath(entry.filename).parts
            if parts[0].endswith(".data"):  # of what a wheel installs elsewhere only libraries matter here
                if parts[1] not in ("purelib", "platlib"):
                    continue
                parts = parts[2:]
            with archive.open(entry) as source:
                write(source, inside(site, "/".join(parts)))


def put_in_place(beside, target):
    try:
        beside.rename(target)
    except OSError:
        if (target / "READY").exists():
            return  # another laptop was faster
        broken = Path(tempfile.mkdtemp(prefix=".broken.", dir=str(target.parent)))
        target.rename(broken / "bundle")
        beside.rename(target)
        shutil.rmtree(str(broken), ignore_errors=True)


def inside(folder, name):
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise SystemExit("The bundle holds a path that leaves its folder: " + name[:80])
    return folder.joinpath(*path.parts)


def write(source, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(source, file, 1024 * 1024)


def sha256(path):
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1024 * 1024), b""):
            digest.update(chunk)
    return digest.hexdigest()


if __name__ == "__main__":
    os.umask(0o077)
    install(sys.argv[1], Path(sys.argv[2]).absolute())
