"""The machine's half of the store on a machine that lacks a library, and what it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ATTEMPT = """
import sys
for name in {missing!r}:
    sys.modules[name] = None  # what an import of it meets where it is not installed
from remote.contract.run_spec import StoreRef
from remote.store import StoreError, open_store
try:
    print(type(open_store(StoreRef({url!r}, endpoint="http://127.0.0.1:1"))).__name__)
except StoreError as error:
    print(error)
print(sorted(name for name in ("google.cloud.storage", "orchestrator") if sys.modules.get(name)))
"""


def _attempt(url: str, *missing: str) -> list[str]:
    code = ATTEMPT.format(url=url, missing=missing)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_a_folder_needs_no_google_cloud_storage(tmp_path: Path) -> None:
    assert _attempt(str(tmp_path), "google.cloud.storage", "google.auth") == ["Retrying", "[]"]


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    message = _attempt(str(tmp_path), "google_crc32c")[0]
    assert message == f"the store {tmp_path} needs the Python package google_crc32c, which this machine lacks"
    message = _attempt("gs://trees", "google.auth")[0]
    assert message == "the store gs://trees needs the Python package google.auth, which this machine lacks"


def test_the_laptop_loads_google_only_for_a_bucket(tmp_path: Path) -> None:
    code = (
        "import sys; from orchestrator.stores import open_store; from remote.contract.run_spec import StoreRef; "
        f"assert 'google_crc32c' not in sys.modules; open_store(StoreRef({str(tmp_path)!r})).get('a'); "
        "assert 'google.cloud.storage' not in sys.modules and 'google.auth' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
