"""What the runs of the accuracy table say, as tables."""

from __future__ import annotations

from typing import Any


def line(record: dict[str, Any]) -> str:
    n, correct = (
        len(record["labels"]),
        sum(a == b for a, b in zip(record["labels"], record["said"], strict=True)),
    )
    return (
        f"{record['data']} {record['model']} {record['scenario']} turn {record['turn']} seed {record['seed']} "
        f"{record['parameters'] or ''}: {correct / n:.4f} ({correct} of {n}), {record['seconds']} s {record.get('chosen', '')}"
    )


def text(records: list[dict[str, Any]]) -> str:
    return "\n".join(line(record) for record in records)
