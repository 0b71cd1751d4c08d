"""Products with quantised weights: interpreter and machine on every kind of layout, against what the layout says
in float64, between guard pages."""

from __future__ import annotations

from dataclasses import dataclass, replace

import machine
import numpy as np
import products
import pytest
from products import Form

from gllm_kernels.codegen import gemm, quads, spec
from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.isa.avx2 import AVX2
from gllm_kernels.codegen.isa.avx512 import AVX512
from gllm_kernels.codegen.isa.base import Isa
from gllm_kernels.codegen.panels import QUAD, Panels
from gllm_kernels.codegen.tuning import default_params
from gllm_kernels.errors import CompileError

DTYPES = {"i8": np.int8, "u8": np.uint8, "i16": np.int16, "f16": np.float16, "f32": np.float32}
HALF = ("f16", "")
BOTH = ("f16", "f16")
# planes, group, block, low, scale, offset, leaves, table
LAYOUTS = {
    "4 bits": ((4,), 32, 32, -8, "", "", HALF), "4 bits and an offset": ((4,), 32, 32, 0, "", "f16", HALF),
    "8 bits": ((8,), 32, 32, -128, "", "", HALF), "scaled groups": ((4,), 32, 256, 0, "u8", "u8", BOTH),
    "6 bits": ((4, 2), 16, 256, -32, "i8", "", HALF), "5 bits": ((4, 1), 32, 256, 0, "u8", "u8", BOTH),
    "2 bits": ((2,), 16, 256, 0, "u8", "u8", BOTH), "3 bits": ((2, 1), 16, 256, -4, "i8", "", HALF),
    "1 bit": ((1,), 32, 32, 0, "", "", ("f32", "")), "table": ((4,), 32, 256, -127, "i8", "", HALF, True),
    "floats per group": ((4,), 16, 64, -12, "f32", "f32", ("", ""), True),
    "zeros": ((4,), 32, 128, 0, "", "i16", BOTH), "nothing": ((8,), 32, 32, -128, "", "", ("", "")),
    "groups of 8": ((4,), 8, 256, -7, "u8", "f32", ("f32", ""), True),
}
EVERY = pytest.mark.parametrize("isa", (AVX2, AVX512), ids=lambda i: i.name)
HOST = pytest.mark.parametrize("isa", machine.RUNNABLE, ids=lambda i: f"{i.name}-{len(i.features)}")
NAMES = pytest.mark.parametrize("name", LAYOUTS)


@dataclass(frozen=True)
class Matrix:
    """A random matrix of a layout: its bytes and its values."""

    panels: Panels
    bytes: np.ndarray
    values: np.ndarray


def layout(name: str, isa: Isa) -> Panels:
    return Panels(isa.lanes, *LAYOUTS[name])


def matrix(p: Panels, n: int, k: int, seed: int = 0) -> Matrix:
    """Element by element, as the layout is described."""
    rng, lanes = np.random.default_rng(seed), p.lanes
    rows, blocks, groups = -(-n // lanes) * lanes, k // p.block, p.block // p.group

    def numbers(kind: str, *shape: int) -> np.ndarray:
        if kind[:1] == "f":
            return rng.standard_normal(shape).astype(DTYPES[kind])
        low = 0 if kind == "u8" else -100
        return rng.integers(low, 100, shape).astype(DTYPES[kind]) if kind else np.ones(shape)

    codes = rng.integers(0, 16 if p.table else 1 << sum(p.planes), (rows, k))
    table = rng.integers(0, 256, 16).astype(np.uint8)
    leaves = [numbers(kind, rows, blocks) for kind in p.leaves]
    scale, offset = (numbers(kind, rows, blocks, groups) for kind in (p.scale, p.offset))
    out = np.tile(table, 4).tobytes() if p.table else bytes(64)
    for panel in range(0, rows, lanes):
        some = slice(panel, panel + lanes)
        out += b"".join(planes_of(p, codes[some, q * p.block : (q + 1) * p.block]) for q in range(blocks))
        for q in range(blocks):
            out += b"".join(x[some, q].tobytes() for x, kind in zip(leaves, p.leaves) if kind)
            out += b"".join(x[some, q, g].tobytes() for g in range(groups)
                            for x, kind in ((scale, p.scale), (offset, p.offset)) if kind)
    whole = (table[codes] if p.table else codes).astype(np.float64) + p.low

    def spread(x: np.ndarray) -> np.ndarray:
        return np.repeat(x.reshape(rows, -1).astype(np.float64), k // (x.size // rows), axis=1)

    added = spread(offset) * spread(leaves[1]) if p.offset else 0
    values = spread(scale) * spread(leaves[0]) * whole + added
    return Matrix(p, np.frombuffer(out, np.uint8).copy(), values[:n])


def planes_of(p: Panels, codes: np.ndarray) -> bytes:
    """One block of a panel: a byte holds the codes of quads that are `vectors` apart."""
    found = b""
    for step in range(p.steps):
        part = codes[:, step * p.quads * QUAD :][:, : p.quads * QUAD].reshape(p.lanes, p.quads, QUAD)
        low = 0
        for width in p.planes:
            vectors = p.quads * width // 8
            for vector in range(vectors):
                fields = [(part[:, vector + vectors * f] >> low & (1 << width) - 1) << width * f
                          for f in range(8 // width)]
                found += sum(fields).astype(np.uint8).tobytes()
            low += width
    return found


def rounded(x: np.ndarray, block: int) -> np.ndarray:
    """x as what the kernel multiplies: signed bytes times a step for each block."""
    parts = x.reshape(len(x), -1, block).astype(np.float32)
    top = np.abs(parts).max(axis=2, keepdims=True)
    with np.errstate(all="ignore"):
        codes = np.where(top > 0, np.rint(parts * (np.float32(127) / top)), 0)
    return (codes * (top * np.float32(1 / 127)).astype(np.float64)).reshape(x.shape)


def kernel_of(p: Panels, isa: Isa, epilogue: str = "plain", ctype: str = "float"):
    trace = products.trace_of(Form("n", "t", epilogue))
    types = {"a": ctype, "b": p.storage}
    params = tuple(replace(q, ctype=types.get(q.name, q.ctype)) for q in trace.params)
    return gemm.generate(replace(trace, params=params), isa, default_params(isa))


def operands(made: Matrix, m: int, k: int, epilogue: str = "plain") -> dict:
    args = products.operands(Form("n", "t", epilogue), m, len(made.values), k)
    return args | {"b": made.bytes, "b.s0": k}


def rows_of(array: np.ndarray, m: int, width: int) -> np.ndarray:
    return np.append(array, np.zeros(products.PAD, array.dtype)).reshape(m, -1)[:, :width]


def close(args: dict, made: Matrix, m: int, k: int) -> None:
    x, n = rows_of(args["a"], m, k), len(made.values)
    want = rounded(x, made.panels.block) @ made.values.T
    size = np.abs(rounded(x, made.panels.block)) @ np.abs(made.values.T)
    got = np.append(args["c"], np.zeros(products.PAD, np.float32)).reshape(m, -1)
    assert (np.abs(got[:, :n] - want) <= 2e-6 * size).all()
    assert (got[:-1, n:] == 7).all()  # between the rows nothing is written


@EVERY
@NAMES
def test_kernels_are_legal(name: str, isa: Isa) -> None:
    p = layout(name, isa)
    kernel = kernel_of(p, isa)
    spec.check(kernel)
    for height in quads.HEIGHTS[isa.vregs]:
        routine = quads.tiles(isa, p, height)
        spec.check(routine)
        loops = compile_kernel(routine, isa).loop_stats()
        hot = loops[-1] if p.steps > 1 else next(loop for loop in loops if loop.name == "block")
        assert (hot.spills, hot.moves) == (0, 0), hot


@HOST
@NAMES
def test_machine_and_interpreter_agree(name: str, isa: Isa) -> None:
    p, (m, n, k) = layout(name, isa), (3, 19, 512)
    made = matrix(p, n, k)
    machine.agree(kernel_of(p, isa), isa, operands(made, m, k))


@HOST
@NAMES
def test_products_at_every_edge(name: str, isa: Isa) -> None:
    p = layout(name, isa)
    code = compile_kernel(kernel_of(p, isa), isa)
    for m, n, blocks in ((1, 1, 1), (1, 16, 2), (2, 33, 1), (5, 97, 3), (9, 15, 1), (64, 40, 1), (67, 130, 2)):
        k = blocks * p.block
        made = matrix(p, n, k, seed=m)
        for at in ("end", "start"):
            args = operands(made, m, k)
            args = {x: machine.guarded_copy(a, at) if isinstance(a, np.ndarray) else a for x, a in args.items()}
            machine.call(code, args)
            close(args, made, m, k)


@HOST
def test_no_rows_no_columns_and_no_terms(isa: Isa) -> None:
    p = layout("scaled groups", isa)
    code = compile_kernel(kernel_of(p, isa), isa)
    for m, n, k in ((0, 16, 256), (3, 0, 256), (3, 5, 0)):
        made = matrix(p, 16, 256)
        args = operands(replace(made, values=made.values[:n]), m, k)
        machine.call(code, args)
        assert not m or not rows_of(args["c"], m, n).any()


@HOST
@pytest.mark.parametrize("epilogue", products.EPILOGUES)
def test_epilogues_are_those_of_any_product(epilogue: str, isa: Isa) -> None:
    p, (m, n, k) = layout("6 bits", isa), (9, 37, 512)
    made = matrix(p, n, k)
    machine.agree(kernel_of(p, isa, epilogue), isa, operands(made, m, k, epilogue))


@HOST
@pytest.mark.parametrize("ctype", ["f16", "bf16"])
def test_rows_in_16_bits(ctype: str, isa: Isa) -> None:
    from gllm_kernels.dtypes import STORED

    p, (m, n, k) = layout("4 bits", isa), (3, 17, 96)
    made = matrix(p, n, k)
    args = operands(made, m, k)
    args["a"] = args["a"].astype(STORED[ctype])
    machine.agree(kernel_of(p, isa, ctype=ctype), isa, args)
    args["a"] = args["a"].astype(np.float32)


@HOST
def test_extreme_codes_do_not_overflow(isa: Isa) -> None:
    """All bytes at their ends, x at its ends: the largest sums of bytes that can be."""
    for name in ("8 bits", "6 bits", "4 bits", "nothing"):
        p, (m, n, k) = layout(name, isa), (2, 16, 512)
        for fill in (0x00, 0xFF, 0x7F, 0x80):
            made = matrix(p, n, k)
            args = operands(made, m, k)
            planes = k // p.block * p.plane_bytes
            args["b"][64 : 64 + planes] = fill
            args["a"][:] = np.where(np.arange(args["a"].size) % 2, 1.0, -1.0) if fill == 0x7F else 1.0
            machine.agree(kernel_of(p, isa), isa, args)


@HOST
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_value_breaks_its_row_only(bad: float, isa: Isa) -> None:
    p, (m, n, k) = layout("4 bits", isa), (3, 16, 64)
    made = matrix(p, n, k)
    args = operands(made, m, k)
    args["a"][k + products.PAD + 5] = bad
    machine.call(compile_kernel(kernel_of(p, isa), isa), args)
    broken = np.isnan(rows_of(args["c"], m, n))
    assert broken[1].all() and not broken[0].any() and not broken[2].any()


@HOST
def test_tiny_and_denormal_rows_are_zeros(isa: Isa) -> None:
    p, (m, n, k) = layout("4 bits", isa), (2, 16, 32)
    made = matrix(p, n, k)
    args = operands(made, m, k)
    args["a"][: k] = 1e-42
    machine.call(compile_kernel(kernel_of(p, isa), isa), args)
    assert np.abs(rows_of(args["c"], m, n)[0]).max() < 1e-30


def test_panels_of_other_lanes_and_columns_first_are_refused() -> None:
    p = layout("4 bits", AVX2)
    with pytest.raises(CompileError, match="8 lanes, avx512 has 16"):
        kernel_of(p, AVX512)
    trace = products.trace_of(Form("n", "n"))
    params = tuple(replace(q, ctype=p.storage) if q.name == "b" else q for q in trace.params)
    with pytest.raises(CompileError, match="quantised: only A @ B.T"):
        gemm.generate(replace(trace, params=params), AVX2, default_params(AVX2))


@HOST
def test_the_bits_do_not_depend_on_the_number_of_rows(isa: Isa) -> None:
    p, (n, k) = layout("scaled groups", isa), (50, 512)
    made, code = matrix(p, n, k), compile_kernel(kernel_of(p, isa), isa)
    many = operands(made, 70, k)
    machine.call(code, many)
    for m in (1, 2, 3, 4, 7, 8, 13):
        few = operands(made, m, k) | {"a": many["a"][: m * (k + products.PAD) - products.PAD].copy()}
        machine.call(code, few)
        assert np.array_equal(rows_of(few["c"], m, n), rows_of(many["c"], 70, n)[:m])


def test_the_loop_of_a_tile_is_products_and_little_else() -> None:
    """8 rows, 32 values of 4 bits: 64 products, their 8 sums converted and scaled, 12 loads taken apart."""
    text = str(compile_kernel(quads.tiles(AVX512, layout("scaled groups", AVX512), 8), AVX512))
    assert text.count("vpdpbusd") == 64 and text.count("{1to16}") >= 64
