"""Vector decoders: the bits of the scalar function on every ISA, between guard pages."""

import re
from pathlib import Path

import numpy as np
import pytest
from guard import guarded, guarded_copy
from machine import ISAS, agree
from weight_blocks import bits, blocks_of, decode

import gllm_kernels as gk
from gllm_kernels import codegen
from gllm_kernels.codegen import quant, spec
from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.kernel import K, KernelBuilder, KParam, Mem
from gllm_kernels.quant.desc import decoded
from gllm_kernels.quant.store import stored_desc
from gllm_kernels.scalar.formats import FORMATS, ROWS
from gllm_kernels.trace.affine import Affine

EVERY = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
BY_ISA = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
CAPS = [isa.name for isa in ISAS] + ["scalar"]


@BY_ISA
@EVERY
def test_machine_code_is_what_the_interpreter_says(row, isa):
    kernel, tables, count = quant.dequantize(stored_desc(row.name), isa)
    spec.check(kernel)
    blocks = blocks_of(row, 2 * count)[: 2 * count]
    out = np.full((2 * count, row.values), 7, np.float32)
    agree(kernel, isa, {"blocks": blocks, "out": out, "tables": tables, "n": 2})


@EVERY
def test_every_number_of_blocks_between_guard_pages(row):
    found = blocks_of(row)
    for cap in CAPS:
        with gk.config(isa=cap):
            for count in (1, 2, 3, 7, 15, 16, 17, 33):
                for at in ("start", "end"):
                    blocks = guarded_copy(found[-count:], at)
                    out = guarded((count, row.values), at=at)
                    gk.dequantize(blocks, row.name, out=out)
                    assert (bits(out) == bits(decode(row, found[-count:]))).all(), (cap, count)


@pytest.mark.parametrize("cap", CAPS)
@EVERY
def test_adversarial_blocks(row, cap):
    blocks = blocks_of(row)
    with gk.config(isa=cap):
        found = gk.dequantize(blocks, row.name)
    assert (bits(found) == bits(decode(row, blocks))).all()


@BY_ISA
@pytest.mark.parametrize(("name", "most"), [
    ("Q4_0", 9), ("Q8_0", 9), ("Q4_K", 9), ("Q6_K", 12), ("IQ4_XS", 11), ("FP8_E4M3", 7),
    ("TQ2_0", 8), ("INT8", 7),
])  # fmt: skip
def test_what_a_vector_of_values_costs(name, most, isa):
    """At most so many instructions for each store of a vector, the loop's own included; no spills."""
    desc = stored_desc(name)
    kernel, _, count = quant.dequantize(desc, isa)
    code = compile_kernel(kernel, isa)
    (stats,) = code.own_loops()
    assert code.spills == 0 and stats.stores == count * len(desc.codes) // isa.lanes
    assert stats.instructions <= most * stats.stores, stats


@BY_ISA
def test_a_gather(isa):
    rng = np.random.default_rng(3)
    b = KernelBuilder("gather", isa.lanes, (KParam("x", "ptr"), KParam("i", "ptr"), KParam("out", "ptr")))
    for k, (scale, disp) in enumerate(((4, 0), (1, 8), (2, 4))):
        index = b.load(b.arg("i"), b.int(0), 1, 4 * k * isa.lanes)
        found = b.emit(K.GATHER, b.arg("x"), index, imm=Mem(scale, disp))
        both = b.emit(K.VXOR, found, index)  # the index is alive behind it
        b.store(b.arg("out"), b.int(0), both, 1, 4 * k * isa.lanes)
    kernel = b.build(Affine.const(1), 1)
    spec.check(kernel)
    rows = [rng.integers(0, most, isa.lanes) for most in (25, 89, 47)]
    rows[0][-1], rows[1][-1], rows[1][0] = 24, 88, -8
    index = np.concatenate(rows).astype(np.int32)
    x = rng.integers(0, 256, 100, dtype=np.uint8)
    agree(kernel, isa, {"x": x, "i": index, "out": np.zeros(3 * isa.lanes, np.float32)})


def test_glued_blocks_mean_the_same():
    for name in ("Q4_K", "AWQ4", "NVFP4", "IQ1_M", "FP8_E5M2"):
        row, desc = FORMATS.lookup(name), stored_desc(name)
        blocks = blocks_of(row, 6)[:6]
        whole = decoded(quant.glued(desc, 3), blocks.reshape(2, -1))
        assert (bits(whole.reshape(6, -1)) == bits(decoded(desc, blocks))).all()


def test_no_generator_knows_the_name_of_a_format():
    names = "|".join(re.escape(row.name) for row in ROWS if not row.name.startswith("INT"))
    known = re.compile(rf"\b(i?q[1-8]_|{names})", re.I)
    for path in sorted(Path(codegen.__file__).parent.rglob("*.py")):
        found = [line for line in path.read_text(encoding="utf-8").splitlines() if known.search(line)]
        assert not found, f"{path}: {found}"
