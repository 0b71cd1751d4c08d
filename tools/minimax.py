#!/usr/bin/env python3
"""Derive the polynomial coefficients of codegen/approx.py: weighted minimax fits, float32 values.

    python tools/minimax.py            prints every row: coefficients and the largest weighted error

Each row approximates  target(r) ~ P(r)  on an interval with the error weight(r)*(P - target), chosen
so that it is the relative error of the function computed from P. Remez exchange on a fine grid;
coefficients are rounded to float32 from the lowest degree up and the rest refitted after each, so
the printed float32 polynomial is the fit, not the rounding of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

GRID = 20001


@dataclass(frozen=True, slots=True)
class Row:
    """What to fit; `degree` is that of P."""

    name: str
    target: Callable[[np.ndarray], np.ndarray]
    weight: Callable[[np.ndarray], np.ndarray]
    low: float
    high: float
    degree: int


def series(r: np.ndarray, first: int, ratio: Callable[[int], float], terms: int) -> np.ndarray:
    """sum of t_k r^k with t_0 = first and t_(k+1) = t_k * ratio(k): no cancellation at r = 0."""
    total, term = np.zeros_like(r), np.full_like(r, first)
    for k in range(terms):
        total, term = total + term, term * r * ratio(k)
    return total


def exp_tail(r: np.ndarray) -> np.ndarray:
    """(exp(r) - 1 - r) / r^2 = 1/2 + r/6 + r^2/24 + ..."""
    return series(r, 0.5, lambda k: 1 / (k + 3), 24)


def log_tail(f: np.ndarray) -> np.ndarray:
    """(log(1+f) - f + f^2/2) / f^3, by its series near 0 where the quotient cancels."""
    near = sum((-1) ** k * f**k / (k + 3) for k in range(24))
    safe = np.where(np.abs(f) < 0.1, 0.1, f)
    far = (np.log1p(safe) - safe + safe**2 / 2) / safe**3
    return np.where(np.abs(f) < 0.1, near, far)


def tanh_tail(z: np.ndarray) -> np.ndarray:
    """(tanh(x)/x - 1) / x^2 with z = x^2, by its series -1/3 + 2z/15 - ... (|x| < pi/2)."""
    bernoulli = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510,
                 43867 / 798, -174611 / 330, 854513 / 138, -236364091 / 2730)
    total, factorial = np.zeros_like(z), 2.0
    for k, b in enumerate(bernoulli[1:], start=2):
        factorial *= (2 * k) * (2 * k - 1)
        total += 4.0**k * (4.0**k - 1) * b / factorial * z ** (k - 2)
    return total


def exp2_tail(r: np.ndarray) -> np.ndarray:
    """(2^r - 1) / r"""
    return series(r, np.log(2), lambda k: np.log(2) / (k + 2), 24)


def log2_tail(f: np.ndarray) -> np.ndarray:
    """(log2(1+f) - f/log(2)) / f^2"""
    return (f * log_tail(f) - 0.5) / np.log(2)


def sin_tail(z: np.ndarray) -> np.ndarray:
    """(sin(r) - r) / r^3 with z = r^2"""
    return series(z, -1 / 6, lambda k: -1 / ((2 * k + 4) * (2 * k + 5)), 12)


def cos_tail(z: np.ndarray) -> np.ndarray:
    """(cos(r) - 1 + r^2/2) / r^4 with z = r^2"""
    return series(z, 1 / 24, lambda k: -1 / ((2 * k + 5) * (2 * k + 6)), 12)


def erf_head(z: np.ndarray) -> np.ndarray:
    """erf(x)/x - 1 with z = x^2: 2/sqrt(pi) times the sum of (-z)^k / (k! * (2k+1)), less 1."""
    terms = sum((-z) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(24))
    return 2 / np.sqrt(np.pi) * terms - 1


def erfc(t: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erfc)(t)


def atanh_tail(z: np.ndarray, first: int = 2) -> np.ndarray:
    """2/log(2) * sum of z^k / (2*(k + first) + 1): log2((1+s)/(1-s))/s past its first terms."""
    return 2 / np.log(2) * sum(z**k / (2 * (k + first) + 1) for k in range(16))


HALF_LN2 = np.log(2) / 2 * (1 + 1e-6)  # rounding of n may leave r slightly outside
ROOT = np.sqrt(0.5)
EIGHTH_TURN = np.pi / 4 * (1 + 1e-6)
ERF_SMALL, ERF_HIGHEST = 0.9277, 4.0

ROWS = (
    Row("EXP", exp_tail, lambda r: r * r / np.exp(r), -HALF_LN2, HALF_LN2, 4),
    Row("LOG", log_tail, lambda f: f**3 / np.log1p(np.where(f == 0, 1e-9, f)),
        ROOT - 1, 2 * ROOT - 1, 8),
    Row("TANH", tanh_tail, lambda z: z / (1 + z * tanh_tail(z)), 0.0, 0.325**2, 2),
    Row("EXP2", exp2_tail, lambda r: r / 2**r, -0.5, 0.5, 5),
    Row("LOG2", log2_tail, lambda f: f**2 / np.log1p(np.where(f == 0, 1e-9, f)) * np.log(2),
        ROOT - 1, 2 * ROOT - 1, 9),
    Row("SIN", sin_tail, lambda z: z / (1 + z * sin_tail(z)), 0.0, EIGHTH_TURN**2, 2),
    Row("COS", cos_tail, lambda z: z**2 / np.cos(np.sqrt(z)), 0.0, EIGHTH_TURN**2, 2),
    Row("ERF", erf_head, lambda z: 1 / (1 + erf_head(z)), 0.0, ERF_SMALL**2, 5),
    Row("ERFC", lambda t: np.log(erfc(t)) / t, lambda t: t * erfc(t) / (1 - erfc(t)),
        ERF_SMALL, ERF_HIGHEST, 6),
    Row("POW", atanh_tail, lambda z: z**2 / atanh_tail(z, 0), 0.0, (3 - 8**0.5) ** 2, 3),
)


def solve(x: np.ndarray, y: np.ndarray, w: np.ndarray, powers: list[int]) -> np.ndarray:
    """Coefficients of the polynomial whose weighted error is minimal in the largest norm."""
    count = len(powers) + 1
    heavy = np.nonzero(np.abs(w) > 0.05 * np.abs(w).max())[0]  # no first node where w vanishes
    nodes = np.cos(np.linspace(np.pi, 0, count)) / 2 + 0.5
    picked = heavy[np.round(nodes * (len(heavy) - 1)).astype(int)]
    for _ in range(100):
        table = np.array([[x[i] ** p for p in powers] + [(-1) ** k / max(abs(w[i]), 1e-300)]
                          for k, i in enumerate(picked)])
        coefs = np.linalg.solve(table, y[picked])[:-1]
        error = (sum(c * x**p for c, p in zip(coefs, powers)) - y) * np.abs(w)
        fresh = extremes(error, count)
        if fresh is None or np.array_equal(fresh, picked):
            break
        picked = fresh
    return coefs


def extremes(error: np.ndarray, count: int) -> np.ndarray | None:
    """One largest error per run of equal sign; `count` neighbouring runs with the largest minimum."""
    there = np.nonzero(error)[0]  # the weight may vanish inside the interval
    runs = np.split(there, np.nonzero(np.diff(np.sign(error[there])))[0] + 1)
    peaks = [run[np.argmax(np.abs(error[run]))] for run in runs]
    if len(peaks) < count:
        return None
    windows = [peaks[k : k + count] for k in range(len(peaks) - count + 1)]
    return np.array(max(windows, key=lambda window: np.abs(error[window]).min()))


def fit(row: Row) -> tuple[list[float], float]:
    """float32 coefficients from degree 0 up, and the largest weighted error they leave."""
    x = np.linspace(row.low, row.high, GRID)
    y, w = row.target(x), row.weight(x)
    fixed: list[float] = []
    rest = y.copy()
    for degree in range(row.degree + 1):
        free = list(range(degree, row.degree + 1))
        fixed.append(float(np.float32(solve(x, rest, w, free)[0])))
        rest = rest - fixed[-1] * x**degree
    return fixed, float(np.abs(rest * w).max())


def main() -> None:
    for row in ROWS:
        coefs, error = fit(row)
        print(f"{row.name} = (  # degree {row.degree}, error {error:.2e} = {error * 2**24:.3f} ULP")
        for c in coefs:
            print(f"    {np.float32(c)!r},".replace("np.float32(", "").replace(")", ""))
        print(")")


if __name__ == "__main__":
    main()
