"""What things cost: estimates from list prices, never the base of a safety limit alone.

US dollars in us-central1, written down on LIST.listed; other regions differ by up to a third, and spot prices change
daily. `catalogue` reads today's own from the Cloud Billing Catalogue, where that can be reached.
Where two sources disagreed, the higher one stands here: an estimate that is too high ends a machine too early, one that
is too low is a bill that nobody expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HOURS_A_MONTH = 730


@dataclass(frozen=True)
class Rate:
    demand: float
    spot: float

    def of(self, *, spot: bool) -> float:
        return self.spot if spot else self.demand


@dataclass(frozen=True)
class PriceTable:
    """Prices of one day. What is not in it counts as the dearest there is."""

    listed: str  # the day, ISO 8601
    source: str  # as people are told: "list prices", "the Cloud Billing Catalogue"
    per_gpu: Mapping[str, Rate]  # an hour
    # By family of machine types: a processor and a GB of memory, an hour.
    per_cpu: Mapping[str, tuple[Rate, Rate]]
    disk_gb_month: Mapping[str, float]
    address_per_hour: float
    unused_address_per_hour: float
    storage_gb_month: float
    regions: Mapping[str, PriceTable] = field(default_factory=dict)  # where they are known to be others

    def of(self, region: str) -> PriceTable:
        return self.regions.get(region, self)

    def per_hour(
        self, machine_type: str, cpus: float, memory_gb: float, accelerator: str, count: int, *, spot: bool
    ) -> float:
        """A machine that runs, without its disk and address."""
        per_cpu, per_gb = self.per_cpu.get(machine_type.partition("-")[0], _DEAREST_CPU)
        price = cpus * per_cpu.of(spot=spot) + memory_gb * per_gb.of(spot=spot)
        if count and accelerator != "none":
            rate = self.per_gpu.get(accelerator)
            price += count * (
                rate.of(spot=spot) if rate else max(one.demand for one in self.per_gpu.values())
            )
        return price

    def disk_per_month(self, gb: float, kind: str = "pd-balanced") -> float:
        """Also while the machine is stopped."""
        return gb * self.disk_gb_month.get(kind, max(self.disk_gb_month.values()))

    def disk_per_hour(self, gb: float, kind: str = "pd-balanced") -> float:
        return self.disk_per_month(gb, kind) / HOURS_A_MONTH

    def unused_address_per_month(self) -> float:
        return self.unused_address_per_hour * HOURS_A_MONTH

    def storage_per_month(self, stored_bytes: int) -> float:
        return stored_bytes / 1e9 * self.storage_gb_month


LIST = PriceTable(
    listed="2026-11-15",
    source="list prices",
    per_gpu={
        "nvidia-tesla-t4": Rate(0.35, 0.175),
        "nvidia-tesla-p4": Rate(0.60, 0.224),
        "nvidia-tesla-p100": Rate(1.46, 0.584),
        "nvidia-tesla-v100": Rate(2.48, 0.992),
        "nvidia-l4": Rate(0.560, 0.223),
        "nvidia-tesla-a100": Rate(2.934, 1.434),
        "nvidia-a100-80gb": Rate(4.42, 1.96),
        "nvidia-h100-80gb": Rate(9.80, 2.99),
        "nvidia-h100-mega-80gb": Rate(9.80, 2.99),
        "nvidia-h200-141gb": Rate(9.31, 5.49),
        "nvidia-b200": Rate(11.28, 4.08),
    },
    per_cpu={
        "e2": (Rate(0.021811, 0.008724), Rate(0.002923, 0.001169)),
        "n1": (Rate(0.031611, 0.012644), Rate(0.004237, 0.001695)),
        "n2": (Rate(0.031611, 0.012644), Rate(0.004237, 0.001695)),
        "g2": (Rate(0.024988, 0.009995), Rate(0.002927, 0.001171)),
        "a2": (Rate(0.031611, 0.015805), Rate(0.004237, 0.002119)),
        "a3": (Rate(0.029917, 0.014959), Rate(0.002605, 0.001303)),
    },
    disk_gb_month={"pd-standard": 0.04, "pd-balanced": 0.10, "pd-ssd": 0.17, "hyperdisk-balanced": 0.08},
    address_per_hour=0.005,
    unused_address_per_hour=0.01,
    storage_gb_month=0.02,
)
_DEAREST_CPU = (Rate(0.05, 0.05), Rate(0.0065, 0.0065))
