"""Who else is installed, and what every candidate has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from types import ModuleType

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Candidate:
    """`run` computes, `result` is the array that then holds what it computed."""

    run: Run
    result: Callable[[], Array]


@dataclass(frozen=True, slots=True)
class Peers:
    """numpy is always there; torch is None where it is not installed."""

    numpy: ModuleType
    torch: ModuleType | None

    def __str__(self) -> str:
        if self.torch is None:
            return f"numpy {self.numpy.__version__}; torch is not installed (pip install torch)"
        return f"numpy {self.numpy.__version__}, torch {self.torch.__version__}"


@cache
def installed() -> ModuleType | None:
    try:
        import torch
    except ImportError:
        return None
    return torch


def found_peers(threads: int) -> Peers:
    """With as many threads as ours; OpenBLAS took its number from the environment when it was
    loaded, which is why the command sets it before numpy is imported."""
    torch = installed()
    if torch is not None:
        torch.set_num_threads(threads)
    return Peers(np, torch)


def tensor(torch: ModuleType, array: Array) -> object:
    """The same memory as a torch tensor; torch knows no bfloat16 of numpy's."""
    if array.dtype.name != "bfloat16":
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


def rotating(runs: Sequence[Run]) -> Run:
    """Calls them in turn, so that each finds its operands cold."""
    if len(runs) == 1:
        return runs[0]
    turns = cycle(runs)
    return lambda: next(turns)()
