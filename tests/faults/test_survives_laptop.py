"""What happens to the laptop: its command is killed, its disk is full."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.faults.survival import World, result_in

# There is no room for the result; then there is.
_FILLED = """
set -e
mkdir -p runs
mount -t tmpfs -o size=2m tmpfs runs
code=0
"$@" || code=$?
echo "exit $code"
test -z "$(find runs -type f -not -path '*/.pull*')"
mount -o remount,size=70m runs
"$@"
cp -r runs/*/ "$PULLED"
"""


def test_its_disk_is_full_while_it_pulls(local: World, code: Path, tmp_path: Path) -> None:
    run_id = local.reference.name
    alone = ["unshare", "--map-root-user", "--mount", "sh", "-c", _FILLED, "sh"]
    done = subprocess.run(
        [*alone, sys.executable, "-m", "orchestrator", "pull", run_id],
        cwd=tmp_path,
        env={**local.variables, "PYTHONPATH": str(code), "PULLED": str(tmp_path / "pulled")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exit 7" in done.stdout
    assert "can't be written" in done.stderr and f"tlvm pull {run_id[-4:]} goes on" in done.stderr
    assert re.search(r"It has \d+ bytes, and \d+ are free", done.stderr)
    assert result_in(tmp_path / "pulled") == local.undisturbed
