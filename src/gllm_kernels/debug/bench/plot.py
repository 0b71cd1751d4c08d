"""The roofline: what intensity allows, and where products lie.

    attainable FLOP/s = min(FMA peak, intensity * read bandwidth)      intensity = FLOP / byte
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import BinaryIO

import numpy as np

from ...errors import ConfigError
from .cases import Case
from .rows import Row

MARKS = {"ours": "o", "numpy": "x", "torch": "+"}


def plotting() -> ModuleType:
    """matplotlib without a window; asked for before anything is measured."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: F401
        from matplotlib.figure import Figure  # noqa: F401
    except ImportError:
        raise ConfigError("--plot needs matplotlib: pip install matplotlib") from None
    return matplotlib


def check_plot(cases: Sequence[Case], isa: str) -> None:
    """Raise unless these rows can be drawn."""
    plotting()
    if isa == "scalar" or not any(case.flops for case in cases):
        raise ConfigError("--plot draws products beside the machine's limits: bench gemm, gemv or "
                          f"all, on a vector instruction set; here: {cases[0].kind} on {isa}")


def roofline(rows: Sequence[Row], output: BinaryIO) -> None:
    """A picture of the products among the rows, each at its best; none if all were wrong."""
    matplotlib = plotting()
    products = [row for row in rows if row.ours and row.case.flops and row.peak]
    if not products:
        return
    figure = matplotlib.figure.Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    draw_roofs(axes, products)
    draw_points(axes, products)
    axes.set(xscale="log", yscale="log", xlabel="FLOP / byte", ylabel="GFLOP/s",
             title=f"{products[0].isa}, {products[0].threads} thread(s)")
    axes.grid(True, which="both", alpha=0.2)
    axes.legend()
    matplotlib.backends.backend_agg.FigureCanvasAgg(figure).print_figure(output, format="png")


def intensity(row: Row) -> float:
    return row.case.flops / row.case.bytes


def draw_roofs(axes: object, rows: Sequence[Row]) -> None:
    """One per type, from the median of the limits of its rows."""
    found = [intensity(row) for row in rows]
    x = np.geomspace(min(found) / 2, max(found) * 2, 200)
    for type_ in dict.fromkeys(row.case.type for row in rows):
        own = [row for row in rows if row.case.type == type_]
        peak, read = (float(np.median([getattr(row, name) for row in own]))
                      for name in ("peak", "read"))
        axes.plot(x, np.minimum(peak, x * read) / 1e9, label=f"attainable from memory, {type_}")


def draw_points(axes: object, rows: Sequence[Row]) -> None:
    for who, mark in MARKS.items():
        found = [(intensity(row), row.rate(times) / 1e9) for row in rows
                 if (times := row.ours if who == "ours" else row.peers.get(who))]
        if found:
            axes.plot(*zip(*found, strict=True), mark, label=who, alpha=0.8)
