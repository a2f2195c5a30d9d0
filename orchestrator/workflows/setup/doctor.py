"""`tlvm doctor`: what this computer has, what is missing, and what to do about it. Changes nothing."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from orchestrator.config import Settings
from orchestrator.errors import TlvmError
from orchestrator.providers.findings import Finding, Level
from orchestrator.workflows.machines.up import spec_of
from orchestrator.workflows.workspace import Workspace

__all__ = ["DoctorResult", "Finding", "doctor"]

_TORCH = """
import json
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in ("torch", "torchvision", "safetensors"):
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
if "torch" in found:
    import torch
    found["cuda"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found["built_for_cuda"] = torch.version.cuda
    found["mps"] = torch.backends.mps.is_available()
print(json.dumps(found))
"""


@dataclass(frozen=True)
class DoctorResult:
    findings: list[Finding]
    failures: int
    warnings: int
    seconds: float
    exit_code: int  # of the first failure; 0 when there is none
    provider: str = "local"


def doctor(settings: Settings) -> DoctorResult:
    """Look at everything at the same time; a look that breaks is a finding too."""
    began = time.monotonic()
    looks: list[Callable[[Settings], list[Finding]]] = [_python, _hardware, _torch, _disk, _docker, _records]
    if settings.provider == "gce":  # nothing is computed here
        looks = [_python, _disk, _records, _cloud]
    with ThreadPoolExecutor(len(looks)) as pool:
        findings = [finding for found in pool.map(lambda look: look(settings), looks) for finding in found]
    failed = [finding for finding in findings if finding.level == "fail"]
    warnings = sum(finding.level == "warn" for finding in findings)
    seconds = time.monotonic() - began
    return DoctorResult(
        findings, len(failed), warnings, seconds, failed[0].code if failed else 0, settings.provider
    )


def _cloud(settings: Settings) -> list[Finding]:
    """The project that machines are rented in."""
    workspace = Workspace(settings)
    rented = workspace.rented
    return rented.examine(spec_of(workspace), settings.store_ref) if rented else []


def _python(settings: Settings) -> list[Finding]:
    where = f"{platform.python_version()} at {sys.executable}"
    return [Finding("ok", "python", where), Finding("ok", "system", platform.platform(terse=True))]


def _hardware(settings: Settings) -> list[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory_gb = _memory_bytes() / 1e9
    found = [Finding("ok", "cores", str(cores))]
    if 0 < memory_gb < 3.5:
        found.append(
            Finding("warn", "memory", f"{memory_gb:.1f} GB", "Use a small model: --model squeezenet1_1")
        )
    elif memory_gb:
        found.append(Finding("ok", "memory", f"{memory_gb:.0f} GB"))
    if nvidia := _output(
        ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    ):
        found += [Finding("ok", "gpu", line.strip()) for line in nvidia.splitlines()]
    elif platform.system() == "Darwin" and platform.machine() == "arm64":
        found.append(Finding("ok", "gpu", "Apple, shared with the memory"))
    else:
        found.append(Finding("ok", "gpu", "none; training runs on the processor"))
    return found


def _torch(settings: Settings) -> list[Finding]:
    """Asked of another process: torch takes seconds to import and 200 MB to hold."""
    needed: Level = "fail" if settings.provider == "local" else "ok"
    install = (
        ""
        if needed == "ok"
        else "pip install 'tlvm[train]', or --provider docker, whose image brings its own"
    )
    answer = _output([sys.executable, "-c", _TORCH], timeout_s=60)
    if not answer:
        return [
            Finding(
                "fail",
                "torch",
                "it is installed but can't be imported",
                "pip install --force-reinstall torch",
            )
        ]
    found = json.loads(answer)
    missing = [name for name in ("torch", "torchvision", "safetensors") if name not in found]
    if missing:
        without = "not installed" + (
            "" if needed == "fail" else f"; {settings.provider} doesn't need it here"
        )
        return [Finding(needed, name, without, install) for name in missing]
    device = ", ".join(found["cuda"]) or ("the Apple GPU" if found["mps"] else "the processor")
    findings = [
        Finding("ok", "torch", f"{found['torch']}, computes on {device}"),
        Finding("ok", "vision", f"torchvision {found['torchvision']}"),
    ]
    if not found["cuda"] and not found["mps"] and shutil.which("nvidia-smi"):
        build = (
            f"built for CUDA {found['built_for_cuda']}" if found["built_for_cuda"] else "a build without CUDA"
        )
        findings.append(
            Finding("warn", "cuda", f"there is an NVIDIA driver, but torch ({build}) can't use it",
                    "Install the build of torch for your driver: pytorch.org/get-started")
        )  # fmt: skip
    return findings


def _disk(settings: Settings) -> list[Finding]:
    """Where local machines and the default store live."""
    there = next(path for path in (settings.data_dir, *settings.data_dir.parents) if path.exists())
    free_gb = shutil.disk_usage(there).free / 1e9
    text = f"{free_gb:.0f} GB free at {settings.data_dir}"
    if not os.access(there, os.W_OK):
        return [
            Finding("fail", "disk", f"{there} can't be written", "Set TLVM_DATA_DIR to a folder that can.")
        ]
    if free_gb < 2:
        return [Finding("fail", "disk", text, "Free some, or set TLVM_DATA_DIR to a folder on another disk.")]
    if free_gb < 10:
        return [
            Finding("warn", "disk", text, "Enough for a few GB of images; TLVM_DATA_DIR names another disk.")
        ]
    return [Finding("ok", "disk", text)]


def _docker(settings: Settings) -> list[Finding]:
    """A failure only where it is the provider that was chosen."""
    missing: Level = "fail" if settings.provider == "docker" else "ok"
    aside = "" if missing == "fail" else "; only --provider docker needs it"
    if (
        settings.provider != "docker"
        and not shutil.which("docker")
        and not Path("/var/run/docker.sock").exists()
    ):
        return [Finding("ok", "docker", f"not installed{aside}")]
    from orchestrator.providers import provider

    try:
        provider("docker", data_dir=settings.data_dir).machines()
    except TlvmError as error:
        return [Finding(missing, "docker", f"{error.what}{aside}", error.next if missing == "fail" else "")]
    return [Finding("ok", "docker", "the engine answers")]


def _records(settings: Settings) -> list[Finding]:
    """Where intents and the keys of this computer are kept."""
    try:
        records = settings.records_dir
        there = next(path for path in (records, *records.parents) if path.exists())
        if not os.access(there, os.W_OK):
            return [
                Finding("fail", "records", f"{there} can't be written", "Run tlvm in a folder of your own.")
            ]
    except OSError as error:
        return [Finding("fail", "records", str(error), "Run tlvm in a folder of your own.")]
    return [Finding("ok", "records", f"{records}, keys of this computer stay there")]


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def _output(command: Sequence[str], *, timeout_s: float = 10) -> str:
    """What a command prints; "" when it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
