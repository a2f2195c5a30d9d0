"""Names for shell completion: from records and folders on this computer only, so that the Tab key answers at once.

A completion never fails: where nothing is known, nothing is offered.
"""

from __future__ import annotations

import os
from pathlib import Path


def providers(incomplete: str) -> list[str]:
    return _starting(["local", "docker", "gce"], incomplete)


def scenarios(incomplete: str) -> list[str]:
    from remote.contract.scenarios import SCENARIOS

    return _starting([*SCENARIOS, "all"], incomplete)


def parameters(incomplete: str) -> list[str]:
    """`KEY=` of any scenario: which one the line names is not known here, an option without its value hides it."""
    from remote.contract.scenarios import SCENARIOS

    names = {parameter.name for scenario in SCENARIOS.values() for parameter in scenario.parameters}
    return _starting([f"{name}=" for name in sorted(names)], incomplete)


def models(incomplete: str) -> list[str]:
    from remote.contract.models import MODELS

    return _starting(list(MODELS), incomplete)


def machines(incomplete: str) -> list[str]:
    return _starting([file.stem for file in _records().glob("machines/*/*.json")], incomplete)


def runs(incomplete: str) -> list[str]:
    """Run ids, of this computer and of a store that is a folder, newest first; or their ends, which name a run as well."""
    found = {file.stem for file in _records().glob("runs/*.json")}
    names = [*(found | {file.parent.name for file in _store().glob("runs/*/spec.json")})]
    names.sort(key=lambda name: name.split("-")[-3:-1], reverse=True)
    return _starting(names, incomplete) or _starting([name[-4:] for name in names], incomplete)


def datasets(incomplete: str) -> list[str]:
    """Those of a store that is a folder; a bucket is not asked."""
    return _starting([folder.name for folder in _store().glob("datasets/*") if folder.is_dir()], incomplete)


def _starting(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _records() -> Path:
    file = _file()
    return file.parent / ".tlvm" if file else data_dir() / "records"


def _store() -> Path:
    import tomllib

    url = os.environ.get("TLVM_STORE_URL", "")
    file = _file()
    if not url and file:
        try:
            url = str(tomllib.loads(file.read_text(encoding="utf-8")).get("store", {}).get("url", ""))
        except (OSError, ValueError, AttributeError):
            return Path(os.devnull)
    if "://" in url:
        return Path(os.devnull)
    return (file.parent if file else Path.cwd()) / Path(url).expanduser() if url else data_dir() / "store"


def _file() -> Path | None:
    here = Path.cwd()
    return next((f / "tlvm.toml" for f in (here, *here.parents) if (f / "tlvm.toml").is_file()), None)


def data_dir() -> Path:
    if named := os.environ.get("TLVM_DATA_DIR"):
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_data_dir("tlvm", appauthor=False))
