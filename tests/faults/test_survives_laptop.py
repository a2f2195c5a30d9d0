"""What happens to the laptop: its command is killed, its disk is full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.faults.survival import World, result_in

# Takes the room as soon as the pull has looked how much there is, and gives it back.
_FILLED = """
set -e
mkdir -p runs
mount -t tmpfs -o size=70m tmpfs runs
( until ls -d runs/*/.pull* >/dev/null 2>&1; do :; done; head -c 100m /dev/zero >runs/fill 2>/dev/null ) &
code=0
"$@" || code=$?
wait
test -f runs/fill
echo "exit $code"
ls -A runs/*/
rm runs/fill
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
    assert "No space left on device" in done.stderr and f"tlvm pull {run_id[-4:]}" in done.stderr
    assert result_in(tmp_path / "pulled") == local.undisturbed
