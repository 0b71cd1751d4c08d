"""Phase 0: a compiled function and its C declaration become a trace.

The lifter and its decoder are imported when something is lifted: the traces of the catalogue are
stored with the package (`store`), so importing the package does neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

LAZY = ("lift", "report", "timing_table")


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(".lifter", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
