"""What a machine costs an hour: an estimate from list prices, never the base of a safety limit alone.

US dollars in us-central1, written down on LISTED; other regions differ by up to a third, and spot prices change daily.
Where two sources disagreed, the higher one stands here: an estimate that is too high ends a machine too early, one that
is too low is a bill that nobody expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LISTED = "2026-11-15"
ADDRESS_PER_HOUR = 0.005
_DISK_GB_MONTH = {"pd-standard": 0.04, "pd-balanced": 0.10, "pd-ssd": 0.17, "hyperdisk-balanced": 0.08}
_HOURS_A_MONTH = 730


@dataclass(frozen=True)
class _Rate:
    demand: float
    spot: float

    def of(self, *, spot: bool) -> float:
        return self.spot if spot else self.demand


_PER_GPU: Mapping[str, _Rate] = {
    "nvidia-tesla-t4": _Rate(0.35, 0.175),
    "nvidia-tesla-p4": _Rate(0.60, 0.224),
    "nvidia-tesla-p100": _Rate(1.46, 0.584),
    "nvidia-tesla-v100": _Rate(2.48, 0.992),
    "nvidia-l4": _Rate(0.560, 0.223),
    "nvidia-tesla-a100": _Rate(2.934, 1.434),
    "nvidia-a100-80gb": _Rate(4.42, 1.96),
    "nvidia-h100-80gb": _Rate(9.80, 2.99),
    "nvidia-h100-mega-80gb": _Rate(9.80, 2.99),
    "nvidia-h200-141gb": _Rate(9.31, 5.49),
    "nvidia-b200": _Rate(11.28, 4.08),
}
# By family of machine types: a processor, and a GB of memory.
_PER_CPU: Mapping[str, tuple[_Rate, _Rate]] = {
    "e2": (_Rate(0.021811, 0.008724), _Rate(0.002923, 0.001169)),
    "n1": (_Rate(0.031611, 0.012644), _Rate(0.004237, 0.001695)),
    "n2": (_Rate(0.031611, 0.012644), _Rate(0.004237, 0.001695)),
    "g2": (_Rate(0.024988, 0.009995), _Rate(0.002927, 0.001171)),
    "a2": (_Rate(0.031611, 0.015805), _Rate(0.004237, 0.002119)),
    "a3": (_Rate(0.029917, 0.014959), _Rate(0.002605, 0.001303)),
}
_DEAREST_CPU = (_Rate(0.05, 0.05), _Rate(0.0065, 0.0065))


def per_hour(
    machine_type: str, cpus: float, memory_gb: float, accelerator: str, count: int, *, spot: bool
) -> float:
    """A machine that runs, without its disk and address. What is not in the table counts as the dearest there is."""
    per_cpu, per_gb = _PER_CPU.get(machine_type.partition("-")[0], _DEAREST_CPU)
    price = cpus * per_cpu.of(spot=spot) + memory_gb * per_gb.of(spot=spot)
    if count and accelerator != "none":
        rate = _PER_GPU.get(accelerator)
        price += count * (rate.of(spot=spot) if rate else max(one.demand for one in _PER_GPU.values()))
    return price


def disk_per_hour(gb: float, kind: str = "pd-balanced") -> float:
    """Also while the machine is stopped."""
    return gb * _DISK_GB_MONTH.get(kind, max(_DISK_GB_MONTH.values())) / _HOURS_A_MONTH
