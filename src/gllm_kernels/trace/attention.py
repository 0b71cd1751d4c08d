"""Which traces are attention: a product with the softmax of another product, over the same keys.

    o[i, j] = f(sum[r<n](p[i, r]*v[r, j]))     p = exp(s - max[r](s)) / sum[r](exp(s - max[r](s)))
    s[i, r] = g(sum[d](q[i, d]*k[r, d]), ...)

`g` is any elementwise function: scale, mask, window, cap. Every Reduce over the keys has a copy of
s under a binder of its own; they are compared node for node.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import CompileError
from .affine import Affine
from .ir import INDICES, Op, OpTrace, float_bits, reachable
from .render import render_value

MAXIMA = ("max", "max_acc", "fmax")
ONE, MINUS_INFINITY = float_bits(1.0), float_bits(float("-inf"))


@dataclass(frozen=True, slots=True)
class Attention:
    """Positions in the body: the sum over the keys, its factor v, s under its binder `key`, and the
    product inside s with its factors. `rows` are the binders that move q alone, outermost first.
    Where one of `hides` is -inf, s is: it is added to a product, which is finite."""

    total: int
    value: int
    score: int
    product: int
    factors: tuple[int, int]
    key: str
    keys: Affine
    rows: tuple[str, ...]
    hides: tuple[int, ...]


def attention_of(trace: OpTrace) -> Attention:
    """The parts of the trace, or CompileError that says what is in the way."""
    body = trace.body
    total, weight, value = _outer(trace)
    _, key, keys = body[total].imm
    over = _quotient(trace, weight)
    score = body[body[over[0]].args[0]].args[0]
    _check_sums(trace, key, keys, over)
    product = _product(trace, score)
    factors = body[body[product].args[1]].args
    q, k = factors if key in body[factors[1]].imm[1].symbols else factors[::-1]
    return Attention(total, value, score, product, (q, k), key, keys,
                     _rows(trace, (q, k, value), key),
                     tuple(_addends(trace, score, product)))


def _rows(trace: OpTrace, loads: tuple[int, int, int], key: str) -> tuple[str, ...]:
    q, k, v = (trace.body[p].imm[1].symbols for p in loads)
    binders = [b for b, _ in trace.stores[0].domain]
    rows = tuple(b for b in binders[:-1] if b in q - k - v)
    if not rows or key in q or key not in k & v or binders[-1] not in v - q - k:
        raise CompileError(f"{trace.name}: rows of q, columns of v and keys of both k and v are "
                           "what attention runs over")
    return rows


def _refuse(trace: OpTrace, position: int, wanted: str) -> CompileError:
    return CompileError(f"{trace.name}: {render_value(trace, position)} is not {wanted}")


def _outer(trace: OpTrace) -> tuple[int, int, int]:
    """The one sum outside of all others, its factor with Reduces and the loaded one."""
    live = list(reachable(trace.body, *(s.value for s in trace.stores)))
    reduces = [p for p in live if trace.body[p].op is Op.REDUCE]
    inner = {a for p in reduces for a in reachable(trace.body, trace.body[p].args[1])}
    outer = [p for p in reduces if p not in inner]
    if len(outer) != 1:
        raise CompileError(f"{trace.name}: {len(outer)} reductions side by side; attention is one "
                           "sum over keys")
    kind, _, _ = trace.body[outer[0]].imm
    term = trace.body[trace.body[outer[0]].args[1]]
    loads = [a for a in term.args if trace.body[a].op is Op.LOAD]
    if kind not in ("sum", "fma") or term.op is not Op.MUL or len(loads) != 1:
        raise _refuse(trace, outer[0], "a sum of weights times loaded values")
    weight = next(a for a in term.args if a != loads[0])
    return outer[0], weight, loads[0]


def _quotient(trace: OpTrace, weight: int) -> tuple[int, int]:
    """(exp(s - m), the sum l) of exp(s - m) / l, or of exp(s - m) * (1 / l)."""
    body, node = trace.body, trace.body[weight]
    found = node.args if node.op is Op.DIV else ()
    if node.op is Op.MUL:
        found = next(((x, body[y].args[1]) for x, y in (node.args, node.args[::-1])
                      if body[y].op is Op.DIV and body[body[y].args[0]].imm == ONE), ())
    if not found or body[found[0]].op is not Op.EXP or body[found[1]].op is not Op.REDUCE or (
            body[body[found[0]].args[0]].op is not Op.SUB):
        raise _refuse(trace, weight, "exp(s - max(s)) / sum(exp(s - max(s)))")
    return found


def _check_sums(trace: OpTrace, key: str, keys: Affine, over: tuple[int, int]) -> None:
    """The sum adds up what the quotient divides, and what is taken off is the largest score."""
    body = trace.body
    score, most = body[body[over[0]].args[0]].args
    rows = ((over[1], ("sum", "fma"), over[0], 0), (most, MAXIMA, score, MINUS_INFINITY))
    for position, kinds, term, start in rows:
        node = body[position]
        if node.op is not Op.REDUCE or node.imm[0] not in kinds or node.imm[2] != keys or (
                body[node.args[0]].imm != start) or (
                not alike(trace, term, node.args[1], {key: node.imm[1]})):
            raise _refuse(trace, position, f"the {kinds[0]} of {render_value(trace, term)}")


def alike(trace: OpTrace, a: int, b: int, names: dict[str, str]) -> bool:
    """Is value b what value a is when binders are renamed?"""
    x, y = trace.body[a], trace.body[b]
    if x.op is not y.op or len(x.args) != len(y.args):
        return False
    env = {old: Affine.sym(new) for old, new in names.items()}
    if x.op is Op.REDUCE:
        same = (x.imm[0], x.imm[2].substitute(env)) == (y.imm[0], y.imm[2])
        names = {**names, x.imm[1]: y.imm[1]}
    elif x.op is Op.LOAD:
        same = (x.imm[0], x.imm[1].substitute(env)) == y.imm
    else:
        same = (x.imm.substitute(env) if x.op in INDICES else x.imm) == y.imm
    return same and all(alike(trace, i, j, names) for i, j in zip(x.args, y.args))


def _product(trace: OpTrace, score: int) -> int:
    """The one Reduce in the score: a sum of products of two loads."""
    body = trace.body
    found = [p for p in reachable(body, score) if body[p].op is Op.REDUCE]
    term = body[body[found[0]].args[1]] if found else None
    if len(found) != 1 or body[found[0]].imm[0] not in ("sum", "fma") or term.op is not Op.MUL or (
            any(body[a].op is not Op.LOAD for a in term.args)) or body[body[found[0]].args[0]].imm:
        raise _refuse(trace, score, "a function of one sum of products of queries and keys")
    return found[0]


def _addends(trace: OpTrace, value: int, product: int) -> Iterator[int]:
    """What is added on the way down to the product and is loaded, such as a mask."""
    body, node = trace.body, trace.body[value]
    for a, b in (node.args, node.args[::-1]) if node.op is Op.ADD else ():
        live = set(reachable(body, b))
        if product in live:
            continue
        if any(body[p].op is Op.LOAD for p in live):
            yield b
        yield from _addends(trace, a, product)
