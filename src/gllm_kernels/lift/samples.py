"""Which sizes can tell: where formulas are read, and how many elements outrun what code remembers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import count as count_from
from itertools import islice, product

from iced_x86 import OpKind, Register

from ..trace.ir import Op, OpTrace
from . import value as v
from .classes import Classes, Sizes
from .engine import Lifted
from .error import Refusal
from .operands import VECTOR
from .program import Program

# Sizes at which the formula is read: 2 apart, so that n and n-1 are never both a dimension.
FIRST, SECOND = 3, (6, 4, 3, 10, 8, 5)
FRAMES = (Register.RSP, Register.RBP, Register.RIP)
ORDINARY = (0, 1, 2, 4, 8, 16)  # immediates that every loop over floats has
MOST_CLASSES = 64


def base_sizes(program: Program, count: int) -> tuple[Sizes, Sizes]:
    """Two tuples of sizes that do not occur as constants in the code."""
    if count > len(SECOND):
        raise Refusal(f"{count} dimensions; at most {len(SECOND)} are lifted")
    used = set(immediates(program)) - set(ORDINARY)
    free = (s for s in count_from(5 if count == 1 else FIRST, 2) if s not in used)
    return tuple(islice(free, count)), (8,) if count == 1 else SECOND[:count]


def immediates(program: Program) -> Iterator[int]:
    """Constants of the code, displacements also as element counts, but for places on the stack."""
    for i in program.instructions:
        for k in range(i.op_count):
            if i.op_kind(k) == OpKind.MEMORY and i.memory_base not in FRAMES:
                size = abs(v.signed(i.memory_displacement, 64))
                yield from (size, size // 4)
            elif OpKind.IMMEDIATE8 <= i.op_kind(k) <= OpKind.IMMEDIATE32TO64:
                yield abs(v.signed(i.immediate(k), 64))


def undivided(sizes: Sizes, classes: Classes, more: int) -> Sizes:
    """Multiples of the periods, at least two of them, so that no remainder loop runs; the sizes
    keep their order and their distances."""
    chosen, shift = list(sizes), 0
    periods = classes.of(sizes).periods
    for place in sorted(range(len(sizes)), key=sizes.__getitem__):
        chosen[place] += shift
        period = periods[place]
        if period > 1:
            chosen[place] = period * (max(2, -(-chosen[place] // period)) + more)
            shift = chosen[place] - sizes[place]
    return tuple(chosen)


def small_sizes(classes: Classes) -> Iterator[Sizes]:
    """0 and 1 in every combination, one tuple of every class, then 2 in each place."""
    count = len(classes.dims)
    yield from product((0, 1), repeat=count)
    small = tuple(2 + k % 2 for k in range(count))
    kinds = list(classes.divided())
    if len(kinds) > MOST_CLASSES:
        raise Refusal(
            f"code that depends on {len(kinds)} classes of remainders of the sizes",
            f"at most {MOST_CLASSES}",
            "compile with -fno-unroll-loops, or at -O1",
        )
    for kind in kinds:
        rows = zip(small, kind.periods, range(count), strict=True)
        least = tuple(0 if k in kind.empty else s if p == 1 else 1 for s, p, k in rows)
        yield kind.sizes(kind.least(least))
    for place in range(count):
        yield (*small[:place], 2, *small[place + 1 :])


def state_size(program: Program, lifted: Lifted) -> int:
    """More elements than the code can remember: vector registers, and the integer registers and
    stack slots that held data or what an earlier round left.

    A delay line of k floats looks like a constant until k + 1 elements have passed.
    """
    return 4 + vectors(program, len(program.inlined)) + len(lifted.conditions.held)


@cache
def vectors(program: Program, calls: int) -> int:
    """The number of vector registers that occur in the function and its `calls`."""
    return len({
        i.op_register(k)
        for i in program.instructions
        for k in range(i.op_count)
        if i.op_kind(k) == OpKind.REGISTER
    } & VECTOR.keys())  # fmt: skip


def lag(trace: OpTrace) -> int:
    """More than the distances between what is written and what is read or written elsewhere in the
    same array: they meet at small sizes or, where no coefficient is larger, not at all.

    Of one store alone, out[1000*i + 3*j] may write an element twice; a coefficient with a dimension
    keeps rows apart. Dimensions count as 2.
    """
    dims = frozenset(trace.names("dim"))
    distances = [0]
    for number, store in enumerate(trace.stores):
        fixed = [abs(c) for c, m in store.index.terms if m and not dims & set(m)]
        distances.append(sum(fixed) if len(fixed) > 1 else 0)
        others = [o.index for o in trace.stores[:number] if o.param == store.param]
        others += [n.imm[1] for n in trace.body if n.op is Op.LOAD and n.imm[0] == store.param]
        for other in others:
            terms = (other - store.index).terms
            distances.append(sum(abs(c) << len(dims & set(m)) for c, m in terms))
    return max(distances)
