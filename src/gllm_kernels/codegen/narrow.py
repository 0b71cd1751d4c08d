"""Masked memory of 8- and 16-bit elements where masks count in 32 bits, in straight-line code.

With n elements there, k of them in a dword and w = n & -k:

    dwords below w/k by mask, then element min(w + j, n - 1) by itself for j < k - 1

Nothing outside the n elements is touched, and no branch depends on n but the one for n <= 0.
"""

from __future__ import annotations

from ..dtypes import SIZE
from ..errors import CompileError
from .kernel import STORAGE, WITHIN, If, Inst, K, Loop
from .legalise import Rewriter

NARROW = {ops[K.LOAD].partition(".")[2]: SIZE[ctype] for ctype, ops in STORAGE.items()
          if SIZE[ctype] < 4}
MASKED_LOADS = tuple(K(f"loadm.{suffix}") for suffix in NARROW)
MASKED_STORES = tuple(K(f"storem.{suffix}") for suffix in NARROW)


def existing(r: Rewriter, inst: Inst, mask: int) -> int:
    """How many lanes a mask that `first` made lets through, if that is positive."""
    first = r.defined.get(mask)
    if first is None or first.op is not K.FIRST:
        raise CompileError(f"{inst.op} (origin {inst.origin or '-'}): without masks for its elements "
                           "its mask must be a `first`")
    return r.emit(K.IMIN, first.args[0], r.int(r.lanes))


def _first(r: Rewriter, count: int) -> int:
    return r.emit(K.FIRST, count, imm=WITHIN)


def _dwords(r: Rewriter, count: int, per: int) -> tuple[int, int]:
    """(elements in whole dwords, the mask of those dwords)"""
    whole = r.emit(K.IAND, count, r.int(-per))
    return whole, _first(r, r.emit(K.IDIV, whole, r.int(per)))


def _single(r: Rewriter, count: int, whole: int, number: int) -> int:
    """min(whole + number, count - 1)"""
    last = r.emit(K.IADD, count, r.int(-1))
    return r.emit(K.IMIN, r.emit(K.IADD, whole, r.int(number)), last)


def _at(r: Rewriter, base: int, number: int, size: int) -> int:
    return r.emit(K.IADD, base, r.emit(K.IMUL, number, r.int(size)))


def load_by_dwords(r: Rewriter, inst: Inst) -> None:
    """loadm(base, index, first(n)); zero where nothing is. A loop of one round carries the value
    out of the branch."""
    base, index, mask = inst.args
    suffix = inst.op.partition(".")[2]
    size = NARROW[suffix]
    count = existing(r, inst, mask)
    zero, once, iv, phi = r.emit(K.VCONST, imm=0), r.emit(K.IMIN, count, r.int(1)), r.fresh(), r.fresh()
    lo = r.int(0)

    def body() -> int:
        whole, words = _dwords(r, count, 4 // size)
        found = r.emit(K.LOADM, base, index, words, imm=inst.imm)
        found = r.emit(K(f"unpack.{suffix}"), found)
        for number in range(4 // size - 1):
            place = _at(r, base, _single(r, count, whole, number), size)
            one = r.emit(K(f"bcast.{suffix}"), place, index, imm=inst.imm)
            below = _first(r, _single_end(r, whole, number))
            found = r.emit(K.SELECT, below, found, one)
        return r.emit(K.SELECT, _first(r, count), found, r.emit(K.VCONST, imm=0))

    inner, found = r.inside(body)
    r.out.append(Loop(iv, lo, once, 1, (zero,), (phi,), inner, (found,), (inst.dst,), "some"))


def _single_end(r: Rewriter, whole: int, number: int) -> int:
    """The lanes before the single element `number`, at most all."""
    return r.emit(K.IMIN, r.emit(K.IADD, whole, r.int(number)), r.int(r.lanes))


def store_by_dwords(r: Rewriter, inst: Inst) -> None:
    """storem(base, index, first(n), v)"""
    base, index, mask, value = inst.args
    suffix = inst.op.partition(".")[2]
    size = NARROW[suffix]
    count, lo = existing(r, inst, mask), r.int(0)

    def body() -> None:
        whole, words = _dwords(r, count, 4 // size)
        packed = r.emit(K(f"pack.{suffix}"), value)
        r.emit(K.STOREM, base, index, words, packed, imm=inst.imm)
        for number in range(4 // size - 1):
            place = _single(r, count, whole, number)
            one = r.emit(K.VPERM, value, r.emit(K.SPLAT, place))
            r.emit(K(f"store1.{suffix}"), _at(r, base, place, size), index, one, imm=inst.imm)

    r.out.append(If(lo, count, r.inside(body)[0]))
