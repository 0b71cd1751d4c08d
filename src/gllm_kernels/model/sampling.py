"""From the logits of one position to the next token: order and defaults are llama.cpp's.

    penalty -> top_k -> top_p -> min_p -> temperature -> draw

Works on float64 in one fixed order, so a seed gives the same tokens on any number of threads.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import GllmError, ShapeError

F64 = NDArray[np.float64]
Ids = NDArray[np.int64]
RANDOM_SEED = -1
PENALTY_WINDOW = 64  # the last tokens that the repeat penalty looks at, as in llama.cpp

# fmt: off
RANGES = {  # parameter: lowest, highest, in words
    "temp":           (0.0, math.inf, "finite, 0 (greedy) or more"),
    "top_k":          (0, math.inf, "0 (all) or more"),
    "top_p":          (0.0, 1.0, "from 0 to 1 (off)"),
    "min_p":          (0.0, 1.0, "from 0 (off) to 1"),
    "repeat_penalty": (1e-6, math.inf, "finite, at least 1e-6; 1 is off"),
    "seed":           (RANDOM_SEED, 2**64 - 1, "from 0 to 2^64 - 1, or -1 for a random one"),
}
# fmt: on
INTEGERS = ("top_k", "seed")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose a token. temp = 0 is greedy: the largest logit, the lowest id of equals."""

    temp: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    seed: int = RANDOM_SEED

    def __post_init__(self) -> None:
        for name, (low, high, words) in RANGES.items():
            value = getattr(self, name)
            kinds = (int, np.integer) if name in INTEGERS else (int, float, np.number)
            if not isinstance(value, kinds) or not low <= value <= high or value == math.inf:
                raise ShapeError(f"{name}={value!r}: must be {words}")


@dataclass(frozen=True, slots=True)
class Candidates:
    """Tokens still in the draw, most likely first; equal logits by id."""

    ids: Ids
    logits: F64

    def first(self, count: int) -> Candidates:
        return Candidates(self.ids[:count], self.logits[:count])


class Sampler:
    """Draws tokens one after the other; `seed` is the one in use, also when it was random."""

    def __init__(self, how: Sampling) -> None:
        self.how = how
        self.seed = random.SystemRandom().getrandbits(32) if how.seed == RANDOM_SEED else how.seed
        # documented to give the same sequence on every Python version, unlike numpy's
        self._random = random.Random(int(self.seed))

    def next(self, logits: np.ndarray, recent: Sequence[int] = ()) -> int:
        """The token after `recent`, given the logits [vocab] of its last position."""
        values = np.asarray(logits, np.float64)
        if not np.isfinite(values).all():
            raise GllmError("the logits are not finite: the weights overflow float32")
        values = penalise(values, recent[-PENALTY_WINDOW:], self.how.repeat_penalty)
        if self.how.temp == 0:
            return int(np.argmax(values))
        return self._draw(narrow(values, self.how))

    def _draw(self, left: Candidates) -> int:
        with np.errstate(over="ignore"):  # a tiny temperature sends all but the best to exp(-inf)
            scaled = (left.logits - left.logits[0]) / self.how.temp
        steps = np.cumsum(weights(scaled))
        point = self._random.random() * steps[-1]
        # rounding may put the point on the last step itself
        return int(left.ids[min(np.searchsorted(steps, point, side="right"), len(steps) - 1)])


def weights(logits: F64) -> F64:
    """exp(x[i] - max(x)): the softmax before its division."""
    return np.exp(logits - logits.max())


def narrow(logits: F64, how: Sampling) -> Candidates:
    """top_k, then top_p, then min_p; at least one token is always left."""
    return min_p(top_p(top_k(logits, how.top_k), how.top_p), how.min_p)


def penalise(logits: F64, recent: Sequence[int], penalty: float) -> F64:
    """x / penalty where x > 0, x * penalty elsewhere, once for each token in `recent`."""
    if penalty == 1 or not len(recent):
        return logits
    seen = np.unique(np.asarray(recent, np.int64))
    result = logits.copy()
    result[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
    return result


def top_k(logits: F64, k: int) -> Candidates:
    """The k largest; of equals at the edge, those with the lowest ids."""
    if 0 < k < logits.size:
        edge = np.partition(logits, -k)[-k]
        above, equal = np.flatnonzero(logits > edge), np.flatnonzero(logits == edge)
        ids = np.concatenate([above, equal[: k - above.size]])
    else:
        ids = np.arange(logits.size)
    order = np.lexsort((ids, -logits[ids]))
    return Candidates(ids[order], logits[ids[order]])


def top_p(left: Candidates, p: float) -> Candidates:
    """The shortest head whose probabilities add up to p."""
    if p >= 1:
        return left
    steps = np.cumsum(weights(left.logits))
    return left.first(int(np.searchsorted(steps, p * steps[-1], side="left")) + 1)


def min_p(left: Candidates, p: float) -> Candidates:
    """Those with at least p times the probability of the likeliest."""
    if p <= 0:
        return left
    return left.first(int(np.count_nonzero(left.logits >= left.logits[0] + math.log(p))))
