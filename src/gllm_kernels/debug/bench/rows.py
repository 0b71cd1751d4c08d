"""From a case to a row: candidates, each checked, those that are right timed in turn."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...codegen.isa.base import Isa
from ...codegen.isa.detect import current_isa, current_isa_name, host
from ...config import config
from .attention import attention_candidates
from .cases import Case, Settings
from .goals import goals_of
from .limits import Limits, limits_of
from .operators import operator_candidates
from .peers import Array, Candidate, Peers, Run, found_peers
from .products import product_candidates
from .quantised import quantised_candidates
from .timing import Clock, Observe, Times, interleaved

COLD_AT_MOST = 1 << 30  # bytes
PRODUCTS = ("gemm", "gemv")
# relative, absolute: products of small integers are exact in float32 and rounded once as they are
# stored; elementary functions have errors of their own
TOLERANCE = {("f32", True): (0, 0), ("f16", True): (2**-10, 0), ("bf16", True): (2**-7, 0),
             ("f32", False): (1e-5, 1e-6), ("f16", False): (2**-9, 2**-11),
             ("bf16", False): (2**-6, 2**-8)}


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured. `wrong`: how our result differs, and then there are no times of it;
    `wrong_peers` likewise."""

    case: Case
    isa: str
    cold: bool
    threads: int
    wrong: str
    ours: Times | None
    peers: dict[str, Times]
    wrong_peers: dict[str, str]
    peak: float  # FLOP/s, 0: no limit known
    read: float  # bytes/s
    one: Times | None = None  # ours on one thread, where more are measured

    def rate(self, times: Times, which: str = "best") -> float:
        """FLOP/s of a product, bytes/s of an operator."""
        return (self.case.flops or self.case.bytes) / getattr(times, which)

    def metrics(self) -> dict[str, float]:
        """numpy, torch, ratio (the best of them), one (thread): their time / ours; peak, read: shares
        of the limits, of bandwidth where the weights come from memory; GB/s."""
        if self.ours is None:
            return {}
        found = {name: times.best / self.ours.best for name, times in self.peers.items()}
        if found:
            found["ratio"] = min(found.values())
        if self.one:
            found["one"] = self.one.best / self.ours.best
        bytes_s = self.case.bytes / self.ours.best
        found["GB/s"] = bytes_s / 1e9
        if self.peak and self.case.flops:
            found["peak"] = self.case.flops / self.ours.best / self.peak
        return found | ({"read": bytes_s / self.read} if self.read and self.cold else {})

    def goals(self) -> list[tuple[str, float, float | None]]:
        """Metric, what it shall be at least, what it is (None: it was not measured)."""
        found = self.metrics()
        return [(goal.metric, goal.least, found.get(goal.metric))
                for goal in goals_of(self.case, self.isa, self.cold, self.threads)]

    def met(self) -> bool | None:
        """None where there is no goal."""
        goals = self.goals()
        return all(is_ is not None and is_ >= least for _, least, is_ in goals) if goals else None


class Bench:
    """`row(case)` measures one row under these settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.isa: Isa | None = current_isa()
        self.isa_name = current_isa_name()
        self.peers: Peers = found_peers(settings.threads)

    @cached_property
    def beyond_caches(self) -> int:
        """Four times the last cache: what rotates through so many bytes comes from memory."""
        return min(4 * max((c.bytes for c in host().caches), default=32 << 20), COLD_AT_MOST)

    def row(self, case: Case, observe: Observe = lambda share: None) -> Row:
        with config(threads=self.settings.threads):
            found, want = self.candidates(case)
            faults = {name: fault(c, want, tolerance(case, name, want))
                      for name, c in found.items()}
            return self.timed(case, found, faults, observe)

    def candidates(self, case: Case) -> tuple[dict[str, Candidate], Array]:
        if case.kind == "ops":
            return operator_candidates(case, self.peers)
        if case.kind == "attention":
            return attention_candidates(case, self.peers)
        if case.kind == "quantised":
            return quantised_candidates(case, self.peers, self.beyond_caches if self.settings.cold else 0)
        return product_candidates(case, self.peers, self.beyond_caches if self.settings.cold else 0)

    def timed(self, case: Case, found: dict[str, Candidate], faults: dict[str, str],
              observe: Observe) -> Row:
        right = {} if faults["ours"] else {n: c.run for n, c in found.items() if not faults[n]}
        s, wrong = self.settings, {n: text for n, text in faults.items() if text and n != "ours"}
        if "ours" in right and s.threads > 1:
            right["one"] = on_one_thread(right["ours"])
        limits = self.limits(case) if right else None
        if limits:
            right |= {"peak": limits.peak, "read": limits.read}
        times = interleaved(right, s.seconds, self.clock(), observe) if right else {}
        peak = limits.flops / times.pop("peak").best if limits else 0.0
        read = limits.bytes / times.pop("read").best if limits else 0.0
        return Row(case, self.isa_name, self.cold(case), s.threads, faults["ours"],
                   times.pop("ours", None), times, wrong, peak, read, times.pop("one", None))

    def cold(self, case: Case) -> bool:
        """Does what it reads come from memory?"""
        if case.kind == "attention":
            return case.bytes >= self.beyond_caches
        return self.settings.cold and case.kind != "ops"

    def limits(self, case: Case) -> Limits | None:
        if self.isa is None:
            return None
        type_ = "bytes" if case.kind == "quantised" else case.type
        return limits_of(self.isa, type_, self.settings.threads, self.beyond_caches)

    def clock(self) -> Clock:
        return time.thread_time if self.settings.cpu_time else time.perf_counter


def tolerance(case: Case, name: str, want: Array) -> tuple[float, float]:
    """A peer of a quantised product has not rounded its rows to bytes."""
    if case.kind == "quantised":
        return 0.0, float(np.abs(want).max()) * (1e-6 if name == "ours" else 0.1)
    return TOLERANCE[case.type, case.kind in PRODUCTS]


def on_one_thread(run: Run) -> Run:
    def alone() -> None:
        with config(threads=1):
            run()

    return alone


def fault(candidate: Candidate, want: Array, tolerance: tuple[float, float]) -> str:
    """How the result of a first call differs from what is right; "" when it does not."""
    candidate.run()
    got = np.asarray(candidate.result()).astype(np.float64)
    if got.shape != want.shape:
        return f"shape {got.shape}, wanted {want.shape}"
    relative, absolute = tolerance
    bad = np.argwhere(~(np.abs(got - want) <= relative * np.abs(want) + absolute))
    if not bad.size:
        return ""
    where = tuple(map(int, bad[0]))
    return (f"{len(bad)} of {want.size} elements, the first at {list(where)}: "
            f"{got[where]:.9g}, wanted {want[where]:.9g}")
