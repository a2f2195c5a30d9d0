"""Threads of torch that wait without spinning, as in `remote.train`: tests share their cores."""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read when torch is loaded, so before any test module
