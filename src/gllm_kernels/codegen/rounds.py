"""A loop over vectors whose last one may not be whole."""

from __future__ import annotations

from collections.abc import Callable

from .kernel import WITHIN, K, KernelBuilder, Value

Values = tuple[Value, ...]
# (lo, hi, mask, what to add to the loop's name, phis) -> results
Body = Callable[[Value, Value, Value | None, str, Values], Values]


def rounds(b: KernelBuilder, size: Value, apart: bool, inits: Values, body: Body,
           last: tuple[Value, Value] | None = None) -> Values:
    """Over [0, size): what fills vectors, then what is left, masked; unless `apart` as one piece of
    code that runs twice, with all lanes first.

    A masked load is no memory operand of an FMA, so fewer fit the reorder buffer, and one row lives
    on loads in flight: there it costs 5 to 25 % of the read bandwidth (Zen 4, cold), so it wants
    the two parts written apart. So does an instruction set without mask registers. `last` may say
    otherwise where the part behind whole vectors begins, and what its mask is.
    """
    whole = size & -b.lanes
    if apart:
        whole, mask = last or (whole, b.emit(K.FIRST, size - whole, imm=WITHIN))
        return body(whole, size, mask, " tail", body(b.int(0), whole, None, "", inits))
    rest = size - whole
    with b.loop(0, 2, 1, *inits, name="rounds") as part:
        mask = b.emit(K.FIRST, (rest - b.lanes) * part.iv + b.lanes, imm=WITHIN)
        part.yields(*body(whole * part.iv, whole + rest * part.iv, mask, "", part.phis))
    return part.results
