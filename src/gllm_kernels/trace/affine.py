"""Integer polynomials over named symbols: array indices, loop extents, buffer sizes.

    Affine ::= sum of coefficient * symbol * symbol * ...

A symbol is a dimension ("n"), a stride ("x.s0") or a loop binder ("i0", "r0"). Affine in every
binder, polynomial in the dimensions: `i0*n + r0` is the terms ((1, ("i0", "n")), (1, ("r0",))).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Monomial = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Affine:
    """A polynomial in normal form: monomials sorted, coefficients non-zero."""

    terms: tuple[tuple[int, Monomial], ...] = ()

    @staticmethod
    def of(terms: Iterable[tuple[int, Monomial]]) -> Affine:
        """Normal form of a sum of terms: symbols sorted, equal monomials added, zeros dropped."""
        total: dict[Monomial, int] = {}
        for coef, mono in terms:
            key = tuple(sorted(mono))
            total[key] = total.get(key, 0) + coef
        rows = sorted(total.items(), key=lambda row: (-len(row[0]), row[0]))
        return Affine(tuple((c, m) for m, c in rows if c))

    @staticmethod
    def const(value: int) -> Affine:
        return Affine(((value, ()),) if value else ())

    @staticmethod
    def sym(name: str, coef: int = 1) -> Affine:
        return Affine(((coef, (name,)),) if coef else ())

    def __add__(self, other: Affine | int) -> Affine:
        other = as_affine(other)
        if not self.terms or not other.terms:
            return self if self.terms else other
        return Affine.of(self.terms + other.terms)

    __radd__ = __add__

    def __neg__(self) -> Affine:
        return Affine(tuple((-c, m) for c, m in self.terms))

    def __sub__(self, other: Affine | int) -> Affine:
        return self + -as_affine(other)

    def __mul__(self, other: Affine | int) -> Affine:
        other = as_affine(other)
        for one, many in ((self, other), (other, self)):
            factor = one.constant
            if factor is not None:
                scaled = tuple([(factor * c, m) for c, m in many.terms]) if factor else ()
                return many if factor == 1 else Affine(scaled)
        return Affine.of([(a * b, m + k) for a, m in self.terms for b, k in other.terms])

    __rmul__ = __mul__

    @property
    def symbols(self) -> frozenset[str]:
        return frozenset(s for _, mono in self.terms for s in mono)

    @property
    def constant(self) -> int | None:
        """The value when no symbol is left, else None."""
        if not self.terms:
            return 0
        return self.terms[0][0] if self.terms[0][1] == () else None

    def coefficient(self, symbol: str) -> Affine:
        """What multiplies `symbol`: (i*n + i + j).coefficient("i") == n + 1."""
        picked = []
        for coef, mono in self.terms:
            if symbol in mono:
                rest = list(mono)
                rest.remove(symbol)
                picked.append((coef, tuple(rest)))
        return Affine.of(picked)

    def without(self, *symbols: str) -> Affine:
        """The terms that mention none of `symbols`."""
        return Affine(tuple((c, m) for c, m in self.terms if not set(symbols) & set(m)))

    def substitute(self, env: Mapping[str, Affine | int]) -> Affine:
        """Replace symbols by polynomials."""
        if not any(symbol in env for _, mono in self.terms for symbol in mono):
            return self
        total = Affine()
        for coef, mono in self.terms:
            term = Affine.const(coef)
            for symbol in mono:
                term = term * (env[symbol] if symbol in env else Affine.sym(symbol))
            total = total + term
        return total

    def evaluate(self, env: Mapping[str, int]) -> int:
        """The value; also works elementwise when `env` holds numpy integer arrays."""
        total = 0
        for coef, mono in self.terms:
            for symbol in mono:
                coef = coef * env[symbol]
            total = total + coef
        return total

    def __str__(self) -> str:
        if not self.terms:
            return "0"
        text = " + ".join(_term(c, m) for c, m in self.terms)
        return text.replace("+ -", "- ")


def as_affine(value: Affine | int | str) -> Affine:
    """An int becomes a constant, a string a symbol."""
    if isinstance(value, Affine):
        return value
    return Affine.sym(value) if isinstance(value, str) else Affine.const(value)


def _term(coef: int, mono: Monomial) -> str:
    if not mono:
        return str(coef)
    product = "*".join(mono)
    return {1: product, -1: "-" + product}.get(coef, f"{coef}*{product}")
