"""`python -m tests.benchmarks.upload`: what an upload costs beside the other ways to send the same images.

Every side runs in a process of its own against the fake storage service, itself a process of its own, at two latencies.
What is close is measured in rounds by turns, and the median of their ratios counts. `single` and `rsync` send the first
files only, once, and their rate counts. Rows end with the promise.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image

from tests.benchmarks import measure
from tests.benchmarks.gcs_process import serving

SIDE = "tests.benchmarks.upload_side"
ROUNDS = 3
GROWING = (10_000, 30_000, 100_000, 300_000, 1_000_000)  # files
SHARED = measure.ROOT.parent / "shared"


@dataclass(frozen=True)
class Set:
    """Images of one size, and what is promised of them."""

    name: str
    folder: Path
    count: int
    measured: int  # files that the slow ways send
    rsync_bar: float


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.upload", description=__doc__)
    parser.add_argument(
        "--latency", type=float, action="append", help="seconds a request; default 0 and 0.04"
    )
    parser.add_argument(
        "--sets", default="medium", help="medium: 2,000 of 20 KB; small,medium: and 60,000 of 1 KB"
    )
    parser.add_argument(
        "--million", type=int, default=0, metavar="N", help="and N files of 1 KB, memory measured"
    )
    parser.add_argument("--without", default="", help="sides to leave out: rsync,single,stream,decode")
    parser.add_argument("--keep", action="store_true", help="append to RESULTS.md")
    chosen = parser.parse_args(arguments)
    without = chosen.without.split(",")
    rows: list[str] = []
    if shutil.which("gcloud") is None:
        without.append("rsync")
        rows.append("not measured: rsync, for gcloud is not installed")
    with tempfile.TemporaryDirectory(prefix="tlvm-bench-") as folder:
        for name in filter(None, chosen.sets.split(",")):
            images = SETS[name](Path(folder))
            os.sync()  # else the first side shares the processors with what writes the files down
            for latency_s in chosen.latency or (0.0, 0.04):
                rows += compared(images, latency_s, Path(folder, "work"), without)
            shutil.rmtree(images.folder)
        if chosen.million:
            rows += growing(Path(folder), chosen.million)
    print(*rows, sep="\n")
    if chosen.keep:
        measure.keep("Upload", rows)
    return int(any(row.startswith("FAIL") for row in rows))


def compared(images: Set, latency_s: float, work: Path, without: list[str]) -> list[str]:
    """Rows of one set at one latency."""
    at = f"{images.name}, {latency_s * 1000:.0f} ms: "
    source = str(images.folder)
    took: dict[str, list[float]] = defaultdict(list)  # seconds for all images, in each round

    def timed(side: str, words: Sequence[str], *, of: str = "") -> measure.Side:
        done = measure.in_process(SIDE, side, source, *words, threads=1)
        took[of or side].append(done.seconds / done.result["images"] * images.count)
        print(f"{at}{of or side}: {done.seconds:.2f} s", file=sys.stderr, flush=True)
        return done

    for _ in range(ROUNDS):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        data = str(work / "data")
        with serving(latency_s) as endpoint:
            first = timed("ours", (data, "ours", endpoint), of="first")
            if "decode" not in without:
                timed("decode", ())
            # Into another bucket: all is sent, the verdicts are known.
            timed("ours", (data, "again", endpoint), of="known")
            if "stream" not in without:
                timed("stream", ("stream", endpoint))
            if len(took["first"]) < ROUNDS:
                continue
            walk = timed("walk", ())
            unchanged = measure.in_process(SIDE, "ours", source, data, "again", endpoint, threads=1)
            added = one_more(images.folder)
            more = measure.in_process(SIDE, "ours", source, data, "again", endpoint, threads=1)
            added.unlink()
            if "single" not in without:
                timed("single", ("single", endpoint, str(images.measured)))
            if "rsync" not in without:
                took["rsync"].append(images.count / rsync(images, work, endpoint))
    assert unchanged.result["unchanged"]
    rows = [
        f"{at}{images.count / median(took['first']):,.0f} images/s ({median(took['first']):.2f} s, "
        f"peak {_mb(first)} MB), {images.count / median(took['known']):,.0f} with known verdicts"
    ]
    for side, over, bar in (
        ("first", "rsync", images.rsync_bar),
        ("known", "rsync", images.rsync_bar),
        ("first", "single", 3.0),
        ("known", "single", 3.0),
        ("known", "stream", 0.7),
        ("first", "decode", 0.7),
    ):
        if over in took:
            known = ", verdicts known" if side == "known" else ""
            ratio, each = _faster(took[side], took[over])
            text = f"{ratio:.2f} x the rate of {over}{known} (at least {bar:g}){each}"
            rows.append(_row(at, ratio >= bar, text))
    most_s = 2 * walk.seconds + 1
    rows.append(
        _row(
            at,
            unchanged.seconds <= most_s,
            f"again, unchanged {unchanged.seconds:.2f} s (at most {most_s:.2f})",
        )
    )
    later_s = more.seconds - unchanged.seconds
    rows.append(
        _row(
            at, later_s <= 1, f"one image added {later_s:.2f} s more (at most 1); {more.result['packs']} pack"
        )
    )
    return rows


def _faster(ours: Sequence[float], others: Sequence[float]) -> tuple[float, str]:
    """How many times the rate ours is; where both were measured in each round, the median of these, and all of them."""
    if len(others) < len(ours):
        return others[0] / median(ours), ""
    ratios = [other / our for our, other in zip(ours, others, strict=True)]
    return median(ratios), f"; in turn {', '.join(f'{ratio:.2f}' for ratio in ratios)}"


def growing(folder: Path, count: int) -> list[str]:
    """Time and memory of 10,000 files, and of more, up to `count`: all processes together."""
    rows = []
    base_s = 0.0
    for number in (size for size in GROWING if size <= count):
        images = many(folder, number)
        with serving(0) as endpoint:
            words = (str(images), str(folder / "data"), "ours", endpoint)
            done = measure.in_process(SIDE, "ours", *words, threads=1)
        peak_mb = done.result["peak_bytes"] / 1024**2
        base_s = base_s or done.seconds
        linear = done.seconds <= 1.1 * base_s * number / GROWING[0]
        rows.append(
            _row(
                "",
                linear and peak_mb <= 1024,
                f"{number:,} files: {done.seconds:.1f} s, {done.seconds / number * 1e6:.0f} µs each, "
                f"{peak_mb:,.0f} MB (at most 1,024)",
            )
        )
        print(rows[-1], file=sys.stderr, flush=True)
        shutil.rmtree(images)
        shutil.rmtree(folder / "data")
    return rows


def small(folder: Path) -> Set:
    (folder / "small").mkdir()
    subprocess.run(["tar", "-xf", SHARED / "data/cifar10.tar.gz", "-C", folder / "small"], check=True)
    return Set("60,000 of 1 KB", folder / "small", 60_000, 5_000, 10)


def medium(folder: Path) -> Set:
    """Crops of real photos, each another one."""
    photos = sorted((SHARED / "data/hymenoptera").rglob("*.jpg"))
    for number in range(2_000):
        place = folder / "medium" / ("train", "train", "train", "val")[number % 4] / f"class{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        with Image.open(photos[number % len(photos)]) as image:
            shift = number // len(photos) * 8
            image.convert("RGB").resize((288, 288)).crop((shift, shift, shift + 240, shift + 240)).save(
                place / f"{number}.jpg", quality=92
            )
    return Set("2,000 of 20 KB", folder / "medium", 2_000, 2_000, 5)


SETS = {"small": small, "medium": medium}


def many(folder: Path, count: int) -> Path:
    """Real JPEG files of 1 KB, made different by a comment segment."""
    with tarfile.open(SHARED / "data/cifar10.tar.gz") as archive:
        real = []
        for member in archive:
            if member.name.endswith(".jpg") and (file := archive.extractfile(member)):
                real.append(file.read())
            if len(real) == 2_000:
                break
    root = folder / "many"
    for number in range(count):
        place = (
            root / ("train" if number % 5 else "val") / f"{number % 99:02d}"
        )  # both sides have every class
        if number < 1_000:
            place.mkdir(parents=True, exist_ok=True)
        data = real[number % len(real)]
        comment = b"\xff\xfe\x00\x0a%08d" % number
        (place / f"{number}.jpg").write_bytes(data[:2] + comment + data[2:])
    return root


def one_more(folder: Path) -> Path:
    place = next(
        path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent.name != folder.name
    )
    out = io.BytesIO()
    Image.effect_noise((32, 32), 90).convert("RGB").save(out, "JPEG")
    path = place.with_name("one-more.jpg")
    path.write_bytes(out.getvalue())
    then = time.time() - 60  # not so fresh that it is looked at again
    os.utime(path, (then, then))
    return path


def rsync(images: Set, work: Path, endpoint: str) -> float:
    """Files a second of `gcloud storage rsync -r`."""
    some = work / "some"
    for number, path in enumerate(sorted(path for path in images.folder.rglob("*") if path.is_file())):
        if number < images.measured:
            (some / path.relative_to(images.folder)).parent.mkdir(parents=True, exist_ok=True)
            os.link(path, some / path.relative_to(images.folder))
    began = time.perf_counter()
    subprocess.run(
        ["gcloud", "storage", "rsync", "-r", str(some), "gs://rsync"],
        env=gcloud(work, endpoint),
        capture_output=True,
        check=True,
    )
    seconds = time.perf_counter() - began
    print(f"rsync {images.measured}: {seconds:.2f} s", file=sys.stderr, flush=True)
    return images.measured / seconds


def gcloud(work: Path, endpoint: str) -> Mapping[str, str]:
    """The environment in which gcloud speaks to the fake service, and keeps to itself."""
    return os.environ | {
        "CLOUDSDK_CONFIG": str(work / "gcloud"),
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{endpoint}/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "True",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_PROJECT": "p",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "1",
    }


def _row(at: str, kept: bool, text: str) -> str:
    return f"{'ok' if kept else 'FAIL'}: {at}{text}"


def _mb(side: measure.Side) -> str:
    return f"{side.peak_bytes / 1024**2:,.0f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
