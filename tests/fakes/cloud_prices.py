"""The price list of Compute Engine as the Cloud Billing Catalogue tells it, with what misleads in the real one.

Prices of 2026 in US dollars; SKUs for committed use, calendar mode and reservations stand beside those that count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.fakes.compute_catalogue import ZONES

SERVICE = "services/6F81-5844-456A"

# title: (on demand, spot) per GPU and hour
_GPUS = {
    "Nvidia Tesla T4 GPU": (0.35, 0.175), "Nvidia Tesla P100 GPU": (1.46, 0.43), "Nvidia Tesla V100 GPU": (2.48, 0.74),
    "Nvidia L4 GPU": (0.56, 0.223), "Nvidia Tesla A100 GPU": (2.934, 1.434),
    "Nvidia Tesla A100 80GB GPU": (3.93, 1.57), "Nvidia H100 80GB GPU": (9.80, 2.99),
}  # fmt: skip
# title: (per core and hour, per GB and hour)
_MACHINES = {
    "N1 Predefined Instance": (0.031611, 0.004237), "E2 Instance": (0.021811, 0.002923), "N2 Instance": (0.031611, 0.004237),
    "G2 Instance": (0.024988, 0.002927), "A2 Instance": (0.031611, 0.004237), "A3 Instance": (0.029376, 0.00255),
}  # fmt: skip
_SPOT = 0.4
_MONTHLY = {
    "Storage PD Capacity": ("PDStandard", 0.04), "Balanced PD Capacity": ("SSD", 0.10), "SSD backed PD Capacity": ("SSD", 0.17),
}  # fmt: skip


def skus() -> list[dict[str, Any]]:
    return [
        sku | {"skuId": f"{number:04X}-4711-0815", "name": f"{SERVICE}/skus/{number:04X}-4711-0815"}
        for number, sku in enumerate(_skus(), 1)
    ]


def _skus() -> Iterator[dict[str, Any]]:
    regions = list(ZONES)
    for title, (on_demand, spot) in _GPUS.items():
        yield _sku(f"{title} running in Americas", "GPU", "OnDemand", on_demand, regions)
        yield _sku(
            f"{title} attached to Spot Preemptible VMs running in Americas",
            "GPU",
            "Preemptible",
            spot,
            regions,
        )
        yield _sku(
            f"Commitment v1: {title} running in Americas for 1 Year",
            "GPU",
            "Commit1Yr",
            on_demand * 0.63,
            regions,
        )
        yield _sku(f"DWS Calendar Mode {title} in Americas", "GPU", "OnDemand", on_demand / 2, regions)
        yield _sku(f"Reserved {title} in Americas", "GPU", "OnDemand", on_demand * 0.9, regions)
    for title, (core, memory) in _MACHINES.items():
        yield _sku(f"{title} Core running in Americas", "CPU", "OnDemand", core, regions)
        yield _sku(f"{title} Ram running in Americas", "RAM", "OnDemand", memory, regions, "GiBy.h")
        cheaper = f"Spot Preemptible {title}"
        yield _sku(f"{cheaper} Core running in Americas", "CPU", "Preemptible", core * _SPOT, regions)
        yield _sku(
            f"{cheaper} Ram running in Americas", "RAM", "Preemptible", memory * _SPOT, regions, "GiBy.h"
        )
        custom = f"{title.split()[0]} Custom Instance"
        yield _sku(f"{custom} Core running in Americas", "CPU", "OnDemand", core * 1.05, regions)
    for title, (group, price) in _MONTHLY.items():
        yield _sku(f"{title} in Americas", group, "OnDemand", price, regions, "GiBy.mo", family="Storage")
    for title, kind, price in (("Standard", "OnDemand", 0.005), ("Spot Preemptible", "Preemptible", 0.0025)):
        yield _sku(f"External IP Charge on a {title} VM", "IpAddress", kind, price, regions, family="Network")


def _sku(
    title: str,
    group: str,
    usage: str,
    price: float,
    regions: list[str],
    unit: str = "h",
    family: str = "Compute",
) -> dict[str, Any]:
    nanos = round(price * 10**9)
    money = {"currencyCode": "USD", "units": str(nanos // 10**9), "nanos": nanos % 10**9}
    return {
        "description": title,
        "category": {
            "serviceDisplayName": "Compute Engine",
            "resourceFamily": family,
            "resourceGroup": group,
            "usageType": usage,
        },
        "serviceRegions": regions,
        "pricingInfo": [
            {
                "effectiveTime": "2026-11-01T00:00:00Z",
                "pricingExpression": {
                    "usageUnit": unit,
                    "displayQuantity": 1,
                    "tieredRates": [{"startUsageAmount": 0, "unitPrice": money}],
                },
                "currencyConversionRate": 1,
            }
        ],
        "serviceProviderName": "Google",
        "geoTaxonomy": {"type": "MULTI_REGIONAL", "regions": regions},
    }
