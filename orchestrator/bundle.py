"""What a machine runs: the `remote/` package and the wheels that the machine lacks, in one tar named by its hash.

    <hash>.tar:  install.py, remote/..., wheels/*.whl        on the machine: ~/.tlvm/bundles/<hash>/{remote/, site/, READY}

The machine is asked which Python it has and what that can import. Missing wheels are fetched on this computer, from the
pinned list infra/bundle/wheels.txt with its hashes; the machine itself asks no index and makes no environment: its own
Python finds `remote/` and the unpacked wheels through PYTHONPATH, and its own torch as always. torch never travels.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import remote
from orchestrator.errors import CloudError, ConfigError, ConflictError
from orchestrator.progress import Progress
from orchestrator.resources import folder
from orchestrator.stores.base import Store
from remote.contract import layout
from remote.contract.wording import count

NEEDED = {
    "torch": (2, 6),
    "torchvision": (0, 21),
    "numpy": (),
    "PIL": (),
}  # the machine's own; oldest version
ALWAYS = {"safetensors": "safetensors", "google_crc32c": "google-crc32c"}  # carried where they are missing
GOOGLE = (
    "google.cloud.storage"  # carried, with all that it needs, where it is missing and the store is a bucket
)
PYTHONS = ((3, 10), (3, 13))
_TRAIN_HINT = "pip install 'tlvm[train]'"
_GLIBC_OLDEST = 17  # of manylinux2014


class Shell(Protocol):
    """What is asked of an SSH connection."""

    def check(self, command: str, *, input: bytes | None = None, timeout_s: float = 60) -> bytes: ...

    def put(self, path: Path, remote_path: str) -> None: ...


@dataclass(frozen=True)
class MachinePython:
    """What the machine said of itself."""

    python: tuple[int, int]
    implementation: str
    executable: str
    system: str  # "Linux", "Darwin"
    machine: str  # "x86_64", "aarch64", "arm64"
    libc: tuple[str, str]  # ("glibc", "2.41")
    modules: Mapping[str, str]  # what can be imported: version, "" where it doesn't say
    bundles: frozenset[str]  # installed ones


@dataclass(frozen=True)
class Bundle:
    hash: str
    path: Path


def ask(shell: Shell) -> MachinePython:
    """Which Python the machine has and what it can import. CloudError when it has none."""
    said = shell.check("python3 -", input=_script("probe.py"))
    try:
        about = json.loads(said)
        return MachinePython(
            python=(int(about["python"][0]), int(about["python"][1])),
            implementation=str(about["implementation"]),
            executable=str(about["executable"]),
            system=str(about["system"]),
            machine=str(about["machine"]),
            libc=(str(about["libc"][0]), str(about["libc"][1])),
            modules={str(name): str(version) for name, version in about["modules"].items()},
            bundles=frozenset(map(str, about["bundles"])),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise CloudError(
            "The machine's python3 gave no sensible answer",
            detail=said[:300].decode(errors="replace"),
            next="tlvm ssh -- python3 --version",
        ) from None


def build(about: MachinePython, *, provider: str, bucket: bool, cache: Path, progress: Progress) -> Bundle:
    """The bundle for such a machine, made or found in `cache`.

    bucket        the store is gs://
    ConfigError   this computer lacks torch (provider "local"), or pip
    CloudError    the machine lacks torch, or has a Python that we don't support; a wheel can't be had
    """
    _check(about, provider)
    wheels = _wheels(_lacking(about, bucket), about, cache, progress)
    data = _tar(wheels)
    digest = hashlib.sha256(data).hexdigest()
    path = cache / "bundles" / f"{digest}.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(beside).replace(path)
    return Bundle(digest, path)


def code() -> str:
    """One sha256 of what of ours goes into any bundle. The bundle's own depends on what its machine lacked, too."""
    digest = hashlib.sha256()
    for name, path in sorted(_ours().items()):
        data = path.read_bytes()
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def install(shell: Shell, bundle: Bundle, about: MachinePython) -> bool:
    """Put the bundle on the machine; False when it is there already. Two laptops may do this at once."""
    if bundle.hash in about.bundles:
        return False
    part = f".tlvm/bundles/.{bundle.hash[:12]}.{secrets.token_hex(4)}.tar"
    shell.check("mkdir -p -m 700 ~/.tlvm ~/.tlvm/bundles")
    shell.put(bundle.path, part)
    shell.check(
        f"cd && python3 - {bundle.hash} {shlex.quote(part)}", input=_script("install.py"), timeout_s=300
    )
    return True


def keep(store: Store, bundle: Bundle) -> None:
    """Put the bundle into the store, where a later machine finds it without this computer."""
    key = layout.bundle_key(bundle.hash)
    if store.get(key) is None:
        with suppress(ConflictError):  # another laptop was faster, with the same bytes
            store.upload(bundle.path, key, if_generation=0)


def fetch(store: Store, digest: str, cache: Path) -> Bundle:
    """The bundle of that hash, from the cache or the store. NotFoundError when the store has none, CloudError when it is damaged."""
    path = cache / "bundles" / f"{layout.sha256(digest)}.tar"
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        path.parent.mkdir(parents=True, exist_ok=True)
        store.download(layout.bundle_key(digest), path)
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            path.unlink()
            raise CloudError(
                f"{layout.bundle_key(digest)} in the store is damaged: its sha256 is another",
                next="The run has to be begun anew: tlvm run.",
            )
    return Bundle(digest, path)


def command(bundle: str, *arguments: str) -> str:
    """What to say to the machine's shell to run `python -m remote` out of a bundle."""
    home = f"$HOME/.tlvm/bundles/{layout.sha256(bundle)}"
    python_path = f'"{home}:{home}/site${{PYTHONPATH:+:$PYTHONPATH}}"'
    return f'cd "{home}" && PYTHONPATH={python_path} exec python3 -m remote {shlex.join(arguments)}'


def require_modules_here() -> None:
    """What a machine of the provider "local" will find, before one is made. ConfigError"""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise _lacks_here(missing, sys.executable)


def _lacks_here(modules: Sequence[str], executable: str) -> ConfigError:
    return ConfigError(
        f"This computer's Python can't train: {', '.join(modules)} is missing",
        detail=f"It is {executable}.",
        next=f"{_TRAIN_HINT}, or another provider (--provider docker).",
    )


def _check(about: MachinePython, provider: str) -> None:
    missing = [name for name in NEEDED if name not in about.modules]
    if missing and provider == "local":
        raise _lacks_here(missing, about.executable)
    if missing:
        raise CloudError(
            f"The machine's python3 lacks {', '.join(missing)}",
            detail=f"It is {about.executable}, Python {_dotted(about.python)}.",
            next="Take an image that has PyTorch, or tlvm down and tlvm up to make the machine anew.",
        )
    for name, oldest in NEEDED.items():
        found = _numbers(about.modules[name])
        if found and found < oldest:
            what = f"{name} is {about.modules[name]}, tlvm needs {_dotted(oldest)} or newer"
            if provider == "local":
                raise ConfigError(f"On this computer {what}", next=f"{_TRAIN_HINT} --upgrade")
            raise CloudError(f"On the machine {what}", next="Take a newer image.")
    if about.python < PYTHONS[0]:
        raise CloudError(
            f"The machine has Python {_dotted(about.python)}, tlvm needs {_dotted(PYTHONS[0])} or newer",
            next="Take a newer image.",
        )


def _lacking(about: MachinePython, bucket: bool) -> list[str]:
    """Lines of wheels.txt, each a requirement with its hashes."""
    listed = _listed()
    lacking = [listed["always"][name] for module, name in ALWAYS.items() if module not in about.modules]
    if bucket and GOOGLE not in about.modules:
        lacking += [listed["always"]["google-crc32c"], *listed["google"].values()]
    return sorted(set(lacking))


def _listed() -> dict[str, dict[str, str]]:
    """wheels.txt: group -> name -> requirement with its hashes."""
    text = (folder("infra") / "bundle" / "wheels.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    groups: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if line.startswith("# group: "):
            names = groups.setdefault(line.removeprefix("# group: ").strip(), {})
        elif line and not line.startswith("#"):
            names[line.partition("==")[0]] = " ".join(line.split())
    return groups


def _wheels(requirements: Sequence[str], about: MachinePython, cache: Path, progress: Progress) -> list[Path]:
    """The wheels of these requirements for that machine, from the cache or fetched and verified by pip."""
    if not requirements:
        return []
    if about.system != "Linux" or about.implementation != "cpython" or about.python > PYTHONS[1]:
        names = ", ".join(text.partition("==")[0] for text in requirements)
        raise CloudError(
            f"The machine lacks {names}, and tlvm has no wheels for it",
            detail=f"It runs {about.implementation} {_dotted(about.python)} on {about.system}.",
            next=f"Install them there: pip install {names.replace(',', '')}",
        )
    options = ["--implementation", "cp", "--python-version", _dotted(about.python)]
    for platform in _platforms(about):
        options += ["--platform", platform]
    wanted = "\n".join([*options, *requirements])
    place = cache / "wheels" / hashlib.sha256(wanted.encode()).hexdigest()[:32]
    if not place.is_dir():
        progress.say("bundle", f"fetching {count(len(requirements), 'package')} that the machine lacks")
        _fetch(requirements, options, place)
    return sorted(place.glob("*.whl"))


def _platforms(about: MachinePython) -> Iterator[str]:
    minor = _numbers(about.libc[1])[1:2] if about.libc[0] == "glibc" else ()
    for number in range(minor[0] if minor else _GLIBC_OLDEST, _GLIBC_OLDEST - 1, -1):
        yield f"manylinux_2_{number}_{about.machine}"
    yield f"manylinux2014_{about.machine}"


def _fetch(requirements: Sequence[str], options: Sequence[str], place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as beside:
        listed = Path(beside) / "requirements.txt"
        listed.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        pip += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--requirement", str(listed)]
        found = subprocess.run(
            [*pip, *options, "--dest", str(Path(beside) / "wheels")], capture_output=True, check=False
        )
        if found.returncode != 0:
            raise _pip_failed(found.stderr.decode(errors="replace"))
        with suppress(OSError):  # another run was faster
            (Path(beside) / "wheels").rename(place)


def _pip_failed(said: str) -> ConfigError | CloudError:
    if "No module named pip" in said:
        return ConfigError(
            "tlvm needs pip to fetch what the machine lacks, and this Python has none",
            detail=f"It is {sys.executable}.",
            next=f"{sys.executable} -m ensurepip, or install tlvm with pip.",
        )
    lines = [line for line in said.splitlines() if line.startswith("ERROR")] or said.splitlines()
    return CloudError(
        "What the machine lacks could not be fetched from the package index",
        detail="\n".join(lines[-5:]),
        next="Check this computer's network, and pip's index settings.",
    )


def _tar(wheels: Sequence[Path]) -> bytes:
    """Reproducible: sorted, no times, no owners."""
    files = _ours() | {f"wheels/{path.name}": path for path in wheels}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, path in sorted(files.items()):
            data = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def _ours() -> dict[str, Path]:
    """Of the tar, what we wrote: by name in it."""
    package = Path(remote.__file__).parent
    files = {
        f"remote/{path.relative_to(package).as_posix()}": path
        for path in package.rglob("*")
        if path.is_file() and path.suffix in (".py", ".json") and "__pycache__" not in path.parts
    }
    return {**files, "install.py": folder("infra") / "bundle" / "install.py"}


def _script(name: str) -> bytes:
    return (folder("infra") / "bundle" / name).read_bytes()


def _numbers(version: str) -> tuple[int, ...]:
    """(2, 13) of "2.13.0+cpu"; () of what is no version."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else ()


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))
