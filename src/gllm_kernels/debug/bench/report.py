"""Rows as a table and as JSON."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import exp, log

from ... import __version__
from ...codegen.isa.detect import host
from .cases import Settings
from .rows import Bench, Row
from .timing import Times

PEERS = ("numpy", "torch")


class Table:
    """Lines: `head`, one per row, `tail`."""

    def __init__(self, bench: Bench, width: int) -> None:
        self.bench, self.width = bench, max(width, 8)

    def head(self) -> list[str]:
        s = self.bench.settings
        weights = "weights from memory" if s.cold else "weights as hot as they get"
        clock = ", CPU time of the thread" if s.cpu_time else ""
        cells = [f"{name:>9}" for name in ("ours", "median", *PEERS)]
        return [
            f"{self.bench.isa_name}, {s.threads} thread(s), {weights}{clock}; {host().brand}",
            f"peers: {self.bench.peers}",
            "products in GFLOP/s, operators in GB/s; best of their rounds, all in turn",
            (f"{'':{self.width}}{''.join(cells)}{'x peer':>8}{'peak':>9}{'share':>7}{'read':>7}"
             f"{'share':>7}  goal"),
        ]

    def row(self, row: Row) -> str:
        if row.wrong:
            return f"{row.case!s:{self.width}}    WRONG: {row.wrong}"
        found, peers = row.metrics(), [row.peers.get(p) for p in PEERS]
        times = [rate(row, row.ours), rate(row, row.ours, "median"),
                 *("wrong" if name in row.wrong_peers else rate(row, t)
                   for name, t in zip(PEERS, peers, strict=True))]
        cells = "".join(f"{cell:>9}" for cell in times)
        ratio = f"{found['ratio']:.2f}" if "ratio" in found else "-"
        peak = f"{row.peak / 1e9:.1f}" if "peak" in found else "-"
        read = f"{row.read / 1e9:.1f}" if row.read else "-"
        return (f"{row.case!s:{self.width}}{cells}{ratio:>8}{peak:>9}{share(found, 'peak'):>7}"
                f"{read:>7}{share(found, 'read'):>7}  {goal(row)}").rstrip()

    def tail(self, rows: Sequence[Row]) -> list[str]:
        return [line for line in (mean_line(rows), goal_line(rows), wrong_line(rows)) if line]


def rate(row: Row, times: Times | None, which: str = "best") -> str:
    return f"{row.rate(times, which) / 1e9:.1f}" if times else "-"


def share(found: dict[str, float], name: str) -> str:
    return f"{found[name]:.0%}" if name in found else "-"


def goal(row: Row) -> str:
    """met, or what is missing."""
    short = [f"{metric} {shown(metric, is_)} of {shown(metric, least)}"
             for metric, least, is_ in row.goals() if is_ is None or is_ < least]
    return "" if row.met() is None else "met" if row.met() else "missed: " + ", ".join(short)


def shown(metric: str, value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:.1%}" if metric in ("peak", "read") else f"{value:.4g}"


def ratios(rows: Sequence[Row]) -> list[tuple[float, Row]]:
    return [(row.metrics()["ratio"], row) for row in rows if "ratio" in row.metrics()]


def geometric_mean(values: Sequence[float]) -> float | None:
    return exp(sum(map(log, values)) / len(values)) if values else None


def mean_line(rows: Sequence[Row]) -> str:
    found = ratios(rows)
    if not found:
        return "ours / best peer: no peer to compare with"
    least, row = min(found, key=lambda pair: pair[0])
    mean = geometric_mean([value for value, _ in found])
    return (f"ours / best peer: geometric mean {mean:.2f} over {len(found)} rows, lowest "
            f"{least:.2f} ({row.case})")


def goal_line(rows: Sequence[Row]) -> str:
    found = [row.met() for row in rows if row.met() is not None]
    return f"goals: {sum(found)} of {len(found)} rows met" if found else ""


def wrong_line(rows: Sequence[Row]) -> str:
    wrong = [str(row.case) for row in rows if row.wrong]
    return f"WRONG: {len(wrong)} of {len(rows)} rows: {', '.join(wrong)}" if wrong else ""


# -- JSON ------------------------------------------------------------------------------------------
def as_json(bench: Bench, rows: Sequence[Row]) -> dict[str, object]:
    return {
        "version": __version__,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cpu": host().brand,
        "isa": bench.isa_name,
        "peers": {"numpy": bench.peers.numpy.__version__,
                  "torch": getattr(bench.peers.torch, "__version__", None)},
        "settings": settings_of(bench.settings),
        "rows": [row_json(row) for row in rows],
        "geometric_mean": geometric_mean([value for value, _ in ratios(rows)]),
    }


def settings_of(settings: Settings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__slots__}


def row_json(row: Row) -> dict[str, object]:
    """Seconds, FLOP/s and bytes/s; shares and ratios as they are."""
    case = row.case
    return {
        "name": case.name, "type": case.type, "layout": case.layout, "shape": list(case.shape),
        "flops": case.flops, "bytes": case.bytes, "cold": row.cold, "threads": row.threads,
        "wrong": row.wrong or None, "ours": times_json(row, row.ours),
        "one_thread": times_json(row, row.one),
        "peers": {name: times_json(row, times) for name, times in row.peers.items()},
        "wrong_peers": row.wrong_peers, "peak": row.peak or None, "read": row.read or None,
        "metrics": row.metrics(), "met": row.met(),
        "goals": [{"metric": m, "least": least, "is": is_} for m, least, is_ in row.goals()],
    }  # fmt: skip


def times_json(row: Row, times: Times | None) -> dict[str, float] | None:
    if times is None:
        return None
    return {"best_s": times.best, "median_s": times.median, "rounds": times.rounds,
            "rate": row.rate(times)}
