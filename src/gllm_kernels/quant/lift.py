"""The description of a format from its decoder: run, describe, compare with the function."""

from __future__ import annotations

from dataclasses import replace
from time import process_time

import numpy as np

from ..errors import LiftError
from ..lift import cache
from ..lift.error import Refusal, lift_error
from ..lift.lifter import Source, Subject, compiled, subject_of
from ..lift.signature import Signature, parse
from ..scalar.formats import FORMATS, call_each
from ..trace.ir import Op
from .desc import QuantDesc, checked, decoded
from .describe import describe
from .machine import BlockMachine, run
from .store import Json, desc_of, json_of
from .tables import Tables

ARGUMENTS = [("uint8_t", True), ("float", False)]
KIND = "blocks"  # of what is kept
MOST_BYTES = 1 << 16
SAMPLES = 48  # blocks in which a description is compared with its decoder


def lift_decoder(source: Source, declaration: str, size: int) -> QuantDesc:
    """What `void decode(const uint8_t *block, float *out)` makes of a block of `size` bytes.

    LiftError when values are not A*(q + Z) + B, naming the lanes. `source` as in `lift.lifter`.
    Kept like traces, see `lift.cache`.
    """
    subject = subject_of(source, parse(declaration))
    kept = _recalled(subject, size)
    if kept is not None:
        return kept
    watched = cache.Watched(subject.image, subject.entry)
    desc = analyse(replace(subject, image=watched), size)
    check(desc, subject)
    cache.keep(watched, subject.signature, json_of(desc), KIND)
    return desc


def is_decoder(declaration: str) -> bool:
    """Whether a declaration is that of a decoder: a block of bytes in, floats out, no sizes."""
    return [(a.ctype, a.const) for a in parse(declaration).arguments] == ARGUMENTS


def report(source: Source, declaration: str) -> str:
    """The description and its time, as the command line prints them. A block is as long as its
    format says, or else ends with the last byte that is read."""
    subject = subject_of(source, parse(declaration))
    size = next((row.size for row in FORMATS if row.declaration == str(subject.signature)), None)
    start = process_time()
    desc = analyse(subject, size)
    lifted = process_time()
    check(desc, subject)
    times = f"lift: {1e3 * (lifted - start):.1f} ms, check: {1e3 * (process_time() - lifted):.1f} ms"
    return f"{desc}\n{times}, every bit equal in {SAMPLES} blocks"


def _recalled(subject: Subject, size: int) -> QuantDesc | None:
    """The kept description, where it is of blocks of this size and the function agrees with it."""
    desc = cache.recall(subject.image, subject.entry, subject.signature, KIND, _read)
    if desc is None or desc.size != size:
        return None
    try:
        check(desc, subject)
    except cache.BAD as failure:
        cache.note(f"a kept description is ignored: {str(failure).splitlines()[0]}")
        return None
    return desc


def _read(data: Json, signature: Signature) -> QuantDesc:
    """A description whose bits all lie in the block: nothing of a file is trusted."""
    desc = checked(desc_of(data))
    if signature.arguments[0].ctype != "uint8_t":
        raise ValueError("it is the description of another function")
    return desc


def analyse(subject: Subject, size: int | None) -> QuantDesc:
    """The description, not yet compared with the function. Without a size the block ends with the
    last byte that is read."""
    signature, program = subject.signature, None
    if not is_decoder(str(signature)):
        raise LiftError(f"{signature.symbol}: a decoder is `void decode(const uint8_t *block, float *out)`")
    if size is not None and not 0 < size <= MOST_BYTES:
        raise LiftError(f"{signature.symbol}: a block of {size} bytes; wanted 1 to {MOST_BYTES}")
    try:
        program = compiled(subject)
        machine = BlockMachine(program, subject.image, signature)
        lanes = run(machine)
        return describe(lanes, Tables(subject.image), _size(machine, size))
    except Refusal as refusal:
        listing = program.listing() if program else {}
        raise lift_error(signature.symbol, refusal, listing, subject.image.line) from None
    except RecursionError:
        raise LiftError(f"{signature.symbol}: one value is a chain of too many operations") from None


def _size(machine: BlockMachine, size: int | None) -> int:
    """The size of the block, in which all loads must lie."""
    loads = [imm[1:] for op, _, imm in machine.nodes.table if op is Op.LOAD]
    size = size or max((at + count for at, count in loads), default=1)
    for at, count in loads:
        if not 0 <= at <= size - count:
            raise Refusal(f"bytes {at} to {at + count} of a block of {size} bytes are read")
    return size


# ---- the second line of defence


def check(desc: QuantDesc, subject: Subject) -> None:
    """Compare with the function on random blocks and on those that are extreme."""
    address, keep = subject.address()
    blocks = samples(desc.size)
    want, got = natively(address, blocks, len(desc.codes)), decoded(desc, blocks)
    wrong = (want.view(np.uint32) != got.view(np.uint32)) & ~(np.isnan(want) & np.isnan(got))
    if wrong.any():
        block, lane = np.argwhere(wrong)[0]
        raise LiftError(
            f"{subject.signature.symbol}: the description gives {got[block, lane]!r} in lane {lane}, the "
            f"function {want[block, lane]!r}, for the block {blocks[block].tobytes().hex()}; please "
            "report this"
        )
    del keep


def natively(address: int, blocks: np.ndarray, values: int) -> np.ndarray:
    """What the function makes of blocks."""
    out = np.empty((len(blocks), values), np.float32)
    call_each(address, blocks, out)
    return out


def samples(size: int, count: int = SAMPLES) -> np.ndarray:
    """Random blocks; blocks of one byte; random ones with one byte all over the first half."""
    rng = np.random.default_rng(size)
    blocks = rng.integers(0, 256, (count, size), np.uint8)
    fills = np.array([0, 255, 127, 128, 1, 0x7C], np.uint8)
    blocks[: len(fills)] = fills[:, None]
    for k, fill in enumerate(fills):
        blocks[len(fills) + k, : size // 2] = fill
        blocks[2 * len(fills) + k, size // 2 :] = fill
    return blocks
