"""Sampling against its definition, computed the slow way, and against frequencies."""

import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from gllm_kernels.errors import GllmError, ShapeError
from gllm_kernels.model.sampling import Sampler, Sampling, narrow, penalise, top_k


def kept(logits: list[float], **options: float) -> list[int]:
    off = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
    return narrow(np.array(logits, np.float64), Sampling(**off | options)).ids.tolist()


def slow_candidates(logits: np.ndarray, how: Sampling) -> list[int]:
    """The definition in words: sort, cut at k, cut at cumulative p, cut at min_p * best."""
    ids = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    ids = ids[: how.top_k] if how.top_k else ids
    p = [math.exp(logits[i] - logits[ids[0]]) for i in ids]
    if how.top_p < 1:
        count = next(n for n in range(1, len(p) + 1) if sum(p[:n]) >= how.top_p * sum(p))
        ids, p = ids[:count], p[:count]
    return [i for i, q in zip(ids, p, strict=True) if q >= how.min_p * p[0]]


def test_defaults_are_those_of_llama_cpp() -> None:
    assert Sampling() == Sampling(0.8, 40, 0.95, 0.05, 1.0, -1)


def test_greedy_takes_the_lowest_of_equals() -> None:
    logits = np.array([1.0, 3.0, 3.0, 2.0], np.float32)
    assert [Sampler(Sampling(temp=0, seed=s)).next(logits) for s in range(5)] == [1] * 5


def test_each_cut() -> None:
    assert kept([0.0, 3.0, 1.0, 2.0]) == [1, 3, 2, 0]
    assert kept([0.0, 3.0, 1.0, 2.0], top_k=2) == [1, 3]
    assert kept([5.0, 5.0, 5.0, 5.0, 6.0], top_k=3) == [4, 0, 1]
    assert kept([1.0, 2.0], top_k=9) == [1, 0]
    assert kept([math.log(x) for x in (0.5, 0.3, 0.15, 0.05)], top_p=0.6) == [0, 1]
    assert kept([math.log(x) for x in (0.5, 0.3, 0.15, 0.05)], top_p=0.0) == [0]
    assert kept([math.log(x) for x in (0.5, 0.3, 0.15, 0.05)], min_p=0.2) == [0, 1, 2]
    assert kept([1.0, 1.0, 0.9], min_p=1.0) == [0, 1]


@pytest.mark.parametrize("seed", range(20))
def test_all_cuts_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(0, 3, 200), 1)  # rounded, so that many are equal
    how = Sampling(top_k=int(rng.integers(0, 60)), top_p=float(rng.uniform(0, 1)), min_p=0.02)
    assert narrow(logits, how).ids.tolist() == slow_candidates(logits, how)


def test_top_k_of_equals_is_the_first_ids() -> None:
    assert top_k(np.zeros(1000), 7).ids.tolist() == list(range(7))


def test_frequencies_follow_the_distribution() -> None:
    p = np.array([0.1, 0.2, 0.3, 0.4])
    for temp in (0.5, 1.0, 2.0):
        how = Sampling(temp=temp, top_k=0, top_p=1.0, min_p=0.0, seed=5)
        sampler = Sampler(how)
        counts = Counter(sampler.next(np.log(p)) for _ in range(20_000))
        wanted = p ** (1 / temp) / (p ** (1 / temp)).sum()
        found = np.array([counts[i] for i in range(4)]) / 20_000
        assert np.abs(found - wanted).max() < 0.015  # four standard deviations


def test_a_seed_gives_one_sequence_and_minus_one_a_new_one() -> None:
    logits = np.random.default_rng(0).normal(0, 1, 500)

    def draw(seed: int) -> tuple[int, list[int]]:
        sampler = Sampler(Sampling(seed=seed, top_k=0))
        return sampler.seed, [sampler.next(logits) for _ in range(30)]

    assert draw(3) == draw(3) and draw(3)[1] != draw(4)[1]
    assert draw(-1) != draw(-1)
    used, tokens = draw(-1)
    assert draw(used)[1] == tokens


def test_a_seed_gives_the_same_tokens_in_a_process_with_other_threads() -> None:
    code = (
        "import numpy as np\n"
        "from gllm_kernels.model.sampling import *\n"
        "x = np.sin(np.arange(32000) * 1.7) * 9\n"
        "s = Sampler(Sampling(seed=9, top_k=0, min_p=0.0))\n"
        "print([s.next(x.astype(np.float32)) for _ in range(20)])"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True, text=True, check=True,
            env={"OMP_NUM_THREADS": n, "GLLM_THREADS": n, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for n in ("1", "2")
    ]  # fmt: skip
    assert runs[0] == runs[1] and len(set(eval(runs[0]))) > 5


def test_repeat_penalty() -> None:
    logits = np.array([2.0, -2.0, 1.0])
    assert penalise(logits, [0, 1, 0], 2.0).tolist() == [1.0, -4.0, 1.0]
    assert penalise(logits, [], 2.0) is logits
    greedy = Sampler(Sampling(temp=0, repeat_penalty=4.0))
    assert greedy.next(logits, [0]) == 2
    assert greedy.next(logits, [0] + [1] * 64) == 0  # 64 tokens ago is forgotten


@pytest.mark.parametrize("temp", [1e-300, 1e-30, 1e30])
def test_extreme_temperatures(temp: float) -> None:
    sampler = Sampler(Sampling(temp=temp, seed=1, top_k=0, top_p=1.0, min_p=0.0))
    tokens = [sampler.next(np.array([0.0, 1.0, 50.0])) for _ in range(60)]
    assert set(tokens) == ({2} if temp < 1 else {0, 1, 2})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite(bad: float) -> None:
    with pytest.raises(GllmError, match="not finite"):
        Sampler(Sampling()).next(np.array([0.0, bad]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temp", -0.1), ("temp", math.nan), ("temp", math.inf), ("temp", "hot"), ("top_k", -1),
        ("top_k", 1.5), ("top_p", 1.1), ("top_p", -0.1), ("min_p", 2), ("repeat_penalty", 0),
        ("seed", -2), ("seed", 1 << 64), ("seed", 0.5), ("seed", None),
    ],
)  # fmt: skip
def test_arguments_out_of_range(name: str, value: object) -> None:
    with pytest.raises(ShapeError) as caught:
        Sampling(**{name: value})
    assert str(caught.value).startswith(f"{name}={value!r}: must be ")
