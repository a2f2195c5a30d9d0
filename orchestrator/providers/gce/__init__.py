"""Machines of Google Compute Engine."""

from __future__ import annotations

from .provider import GceProvider

__all__ = ["GceProvider"]
