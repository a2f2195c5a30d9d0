"""Today's list prices from the Cloud Billing Catalogue, kept on this computer for a week.

The catalogue has some 30,000 entries and no machine types: prices are found by what their descriptions say. Entries for
committed use, reservations and other ways of paying look much alike, some at half the price; where several fit, the
highest counts, and one that is far below the dated table is not believed.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.errors import TlvmError, TransientError
from remote.contract import document
from remote.contract.document import ContractError

from .prices import LIST, PriceTable, Rate
from .rest import Rest
from .services import Services

SOURCE = "the Cloud Billing Catalogue"
KEPT = timedelta(days=7)
ASKED_AGAIN = timedelta(days=1)  # after it could not be had
_SERVICE = "6F81-5844-456A"  # Compute Engine
_PAGE = 5000
_DEADLINE_S = 20.0
_BELIEVED = 0.6  # of the dated table's price, at least; regions differ by less
_FIELDS = (
    "skus(description,category(usageType),serviceRegions,"
    "pricingInfo/pricingExpression/tieredRates/unitPrice),nextPageToken"
)
_OTHER_WAYS = re.compile(
    r"custom|reserved|reservation|sole tenan|premium|commitment|dws|flex|calendar|workstation|vgpu",
    re.IGNORECASE,
)
_GPU = {
    r"\bT4 GPU": "nvidia-tesla-t4",
    r"\bP4 GPU": "nvidia-tesla-p4",
    r"\bP100 GPU": "nvidia-tesla-p100",
    r"\bV100 GPU": "nvidia-tesla-v100",
    r"\bL4 GPU": "nvidia-l4",
    r"\bA100 GPU": "nvidia-tesla-a100",
    r"\bA100 80 ?GB GPU": "nvidia-a100-80gb",
    r"\bH100 80 ?GB (?:Plus|Mega) GPU": "nvidia-h100-mega-80gb",
    r"\bH100 80 ?GB GPU": "nvidia-h100-80gb",
    r"\bH200 141 ?GB GPU": "nvidia-h200-141gb",
    r"\bB200 GPU": "nvidia-b200",
}
_MACHINE = re.compile(
    r"^(?:Spot Preemptible )?(\w+) (?:Predefined )?Instance (Core|Ram) running in ", re.IGNORECASE
)
_DISK = {
    "Storage PD Capacity": "pd-standard",
    "Balanced PD Capacity": "pd-balanced",
    "SSD backed PD Capacity": "pd-ssd",
}
_ADDRESS = "External IP Charge on a Standard VM"


@dataclass(frozen=True)
class Kept:
    """What lies on disk: prices by region and key ("gpu nvidia-l4", "spot gpu nvidia-l4", "core g2", "disk pd-ssd")."""

    asked: str  # ISO 8601
    fetched: str = ""  # "" when it could not be had
    prices: dict[str, dict[str, float]] = field(default_factory=dict)
    schema: int = 1


class Prices:
    """Prices as good as they can be had: the catalogue's of this week, else those of the dated table."""

    def __init__(self, rest: Rest, file: Path | None, now: Callable[[], datetime]) -> None:
        self._rest = rest
        self._file = file
        self._now = now
        self._table: PriceTable | None = None

    def known(self) -> PriceTable:
        """Without asking anybody: a person waits."""
        return self._table or (table(kept) if (kept := self._read()) and kept.fetched else LIST)

    def today(self) -> PriceTable:
        """Asks the catalogue, when what is known is older than a week. Never an error: then there is the dated table."""
        if self._file is None:
            return LIST
        kept = self._read()
        if kept is None or not self._is_fresh(kept):
            kept = self._ask(kept)
        self._table = table(kept) if kept.fetched else LIST
        return self._table

    def _is_fresh(self, kept: Kept) -> bool:
        now = self._now()
        if kept.fetched and timedelta(0) <= now - _time(kept.fetched) < KEPT:
            return True
        return timedelta(0) <= now - _time(kept.asked) < ASKED_AGAIN

    def _ask(self, before: Kept | None) -> Kept:
        asked = self._now().isoformat(timespec="seconds")
        try:
            kept = Kept(asked, asked, read(_skus(self._rest)))
        except TlvmError:
            kept = replace(before, asked=asked) if before else Kept(asked)
        if self._file is not None:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                document.write(self._file, kept)
            except OSError:
                return kept  # it is asked again next time
        return kept

    def _read(self) -> Kept | None:
        try:
            return document.decode(Kept, self._file.read_bytes(), what="prices") if self._file else None
        except (OSError, ContractError):
            return None


def read(skus: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Prices by region and key; of several that fit, the highest. Pure."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for sku in skus:
        key, price = _key(sku), _price(sku)
        if key and price > 0:
            for region in sku.get("serviceRegions", []):
                found[str(region)][key] = max(price, found[str(region)].get(key, 0.0))
    return dict(found)


def table(kept: Kept) -> PriceTable:
    """The dated table, with what the catalogue says better."""
    regions = {name: _region(prices) for name, prices in kept.prices.items()}
    listed = kept.fetched[:10]
    regions = {name: replace(one, listed=listed, source=SOURCE) for name, one in regions.items()}
    return replace(LIST, listed=listed, source=SOURCE, regions=regions)


def _region(prices: Mapping[str, float]) -> PriceTable:
    def rate(key: str, otherwise: Rate) -> Rate:
        return Rate(
            _better(prices.get(key), otherwise.demand), _better(prices.get(f"spot {key}"), otherwise.spot)
        )

    return replace(
        LIST,
        per_gpu={name: rate(f"gpu {name}", one) for name, one in LIST.per_gpu.items()},
        per_cpu={
            family: (rate(f"core {family}", core), rate(f"ram {family}", ram))
            for family, (core, ram) in LIST.per_cpu.items()
        },
        disk_gb_month={
            kind: _better(prices.get(f"disk {kind}"), one) for kind, one in LIST.disk_gb_month.items()
        },
        address_per_hour=_better(prices.get("address"), LIST.address_per_hour),
    )


def _better(price: float | None, listed: float) -> float:
    return price if price is not None and price >= _BELIEVED * listed else listed


def _key(sku: Mapping[str, Any]) -> str:
    """ "" for what is none of ours."""
    said, usage = str(sku.get("description", "")), (sku.get("category") or {}).get("usageType")
    if usage not in ("OnDemand", "Preemptible") or _OTHER_WAYS.search(said):
        return ""
    spot = "spot " if usage == "Preemptible" else ""
    if found := _MACHINE.match(said):
        return f"{spot}{found[2].lower()} {found[1].lower()}"
    for pattern, name in _GPU.items():
        if re.search(pattern, said, re.IGNORECASE):
            return f"{spot}gpu {name}"
    if spot:
        return ""
    for start, kind in _DISK.items():
        if said.startswith(start) and "Regional" not in said:
            return f"disk {kind}"
    return "address" if said.startswith(_ADDRESS) else ""


def _price(sku: Mapping[str, Any]) -> float:
    """The dearest step of the newest price, in US dollars; 0 when it has none."""
    infos = sku.get("pricingInfo") or [{}]
    steps = (infos[-1].get("pricingExpression") or {}).get("tieredRates") or []
    prices = [step.get("unitPrice") or {} for step in steps]
    return max(
        (int(one.get("units") or 0) + int(one.get("nanos") or 0) / 1e9 for one in prices
         if one.get("currencyCode", "USD") == "USD"),
        default=0.0,
    )  # fmt: skip


def _skus(rest: Rest) -> Iterator[Mapping[str, Any]]:
    services, token, began = Services(rest), "", time.monotonic()
    while True:
        if time.monotonic() - began > _DEADLINE_S:
            raise TransientError("The Cloud Billing Catalogue takes too long")
        query = {"pageSize": str(_PAGE), "fields": _FIELDS} | ({"pageToken": token} if token else {})
        page = services.get("cloudbilling", f"v1/services/{_SERVICE}/skus", query, doing="tell its prices")
        yield from page.get("skus", [])
        token = page.get("nextPageToken", "")
        if not token:
            return


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
