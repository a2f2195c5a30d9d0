"""What a run needs that is not about training: a few drawn images, and a bundle with a stand-in, as machines have it installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from orchestrator import bundle
from orchestrator.progress import Silent
from orchestrator.providers.local_session import write_shims

_STANDIN = Path(__file__).parents[1] / "orchestrator" / "standin_train.py"
_IMAGES = ("train/ants/1", "train/ants/2", "train/bees/3", "train/bees/4", "val/ants/5", "val/bees/6")


def draw(folder: Path) -> None:
    """A dataset of six images."""
    for number, path in enumerate(_IMAGES):
        image = folder / f"{path}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (number * 40, 250 - number * 40, 90)).save(image)


def furnished(folder: Path) -> Path:
    """The folder `bundles` of a machine of `gce`, with the stand-in in the place of training; link to it."""
    home = folder / "furnished"
    home.mkdir()
    write_shims(home)
    shell = _Shell(home)
    about = bundle.ask(shell)
    built = bundle.build(about, provider="gce", bucket=True, cache=folder / "cache", progress=Silent())
    bundle.install(shell, built, about)
    bundles = home / ".tlvm" / "bundles"
    shutil.copy(_STANDIN, bundles / built.hash / "remote" / "train.py")
    return bundles


@dataclass(frozen=True)
class _Shell:
    """This computer, as if it were a machine."""

    home: Path

    def check(self, command: str, *, input: bytes | None = None, timeout_s: float = 60) -> bytes:
        environment = {
            **os.environ,
            "HOME": str(self.home),
            "PATH": f"{self.home / '.bin'}:{os.environ['PATH']}",
        }
        return subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.home,
            env=environment,
            input=input,
            stdout=subprocess.PIPE,
            check=True,
            timeout=timeout_s,
        ).stdout

    def put(self, path: Path, remote_path: str) -> None:
        shutil.copy(path, self.home / remote_path)
