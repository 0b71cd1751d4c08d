"""What a run cost: seconds, tokens per second, bytes of weights per second, peak memory."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
MAX_TOKENS = "max_tokens"  # the end of a text that needs no reason


@dataclass(frozen=True, slots=True)
class Pace:
    """Tokens and the seconds they took."""

    tokens: int = 0
    seconds: float = 0.0

    def plus(self, tokens: int, seconds: float) -> Pace:
        return Pace(self.tokens + tokens, self.seconds + seconds)

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Stats:
    """The model's own times, and those of the last text."""

    load_s: float
    compile_s: float
    threads: int
    weight_bytes: int  # that one decode step reads
    prefill: Pace = Pace()
    decode: Pace = Pace()
    seed: int | None = None
    finish: str = ""

    @property
    def read_gb_s(self) -> float:
        """1e9 bytes of weights that decoding had to read, per second."""
        return self.decode.rate * self.weight_bytes / 1e9

    def __str__(self) -> str:
        peak = peak_bytes()
        parts = (
            f"load {self.load_s:.2f} s",
            f"compile {self.compile_s:.2f} s",
            f"prefill {_pace(self.prefill)}",
            f"decode {_pace(self.decode)}",
            f"weights {self.read_gb_s:.2f} GB/s" if self.decode.tokens else "weights - GB/s",
            f"peak {peak / 2**20:.0f} MiB" if peak else "peak unknown",
            f"{self.threads} thread{'s' * (self.threads != 1)}",
        )
        # without its number a random seed could not be used again
        seed = (f"seed {self.seed}",) if self.seed is not None else ()
        stopped = (f"stopped: {self.finish}",) if self.finish not in ("", MAX_TOKENS) else ()
        return " | ".join(parts + seed + stopped)


def _pace(pace: Pace) -> str:
    return f"{pace.rate:.1f} t/s ({pace.tokens} tokens)" if pace.tokens else "- t/s (0 tokens)"


def peak_bytes() -> int | None:
    """The most memory this process ever had resident; None where the system does not tell."""
    try:
        # VmHWM belongs to this program; ru_maxrss would keep the peak of the one that started it
        line = next(s for s in _STATUS.read_text().splitlines() if s.startswith("VmHWM:"))
        return int(line.split()[1]) << 10
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
