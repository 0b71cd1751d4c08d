"""Bound traces of matrix products with all sorts of strides and epilogues, and their operands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gllm_kernels.codegen.isa.base import Isa
from gllm_kernels.codegen.tuning import TuningParams, default_params
from gllm_kernels.trace.affine import Affine
from gllm_kernels.trace.ir import BodyBuilder, Op, OpTrace, Param, Store

S = Affine.sym
I, J, R, G, H = S("i"), S("j"), S("r"), S("g"), S("h")
M, N, K = S("m"), S("n"), S("k")
PAD = 3  # every row stride is this much longer than the row

# (body, position of the product) -> positions of the stored values; params it reads
Epilogue = tuple[Callable[[BodyBuilder, int], tuple[int, ...]], tuple[Param, ...]]


def plain(body: BodyBuilder, x: int) -> tuple[int, ...]:
    return (x,)


def bias_silu(body: BodyBuilder, x: int) -> tuple[int, ...]:
    v = body.add(Op.ADD, x, body.add(Op.LOAD, imm=("bias", J)))
    e = body.add(Op.EXP, body.add(Op.NEG, v))
    return (body.add(Op.DIV, v, body.add(Op.ADD, body.const(1.0), e)),)


def residual(body: BodyBuilder, x: int) -> tuple[int, ...]:
    return (body.add(Op.ADD, body.add(Op.LOAD, imm=("res", I * S("res.s0") + J)), x),)


def scale_mask(body: BodyBuilder, x: int) -> tuple[int, ...]:
    scaled = body.add(Op.MUL, x, body.add(Op.SCALAR, imm="scale"))
    return (body.add(Op.ADD, scaled, body.add(Op.LOAD, imm=("mask", J - I + M - 1))),)


def two_stores(body: BodyBuilder, x: int) -> tuple[int, ...]:
    return (x, body.add(Op.MAX, x, body.const(0.0)))


def in_place(body: BodyBuilder, x: int) -> tuple[int, ...]:
    """The element is read where it is written; with heads c has more strides than this knows."""
    return (body.add(Op.ADD, body.add(Op.LOAD, imm=("c", I * S("c.s0") + J)), x),)


EPILOGUES: dict[str, Epilogue] = {
    "plain": (plain, ()),
    "bias_silu": (bias_silu, (Param("bias", "in"),)),
    "residual": (residual, (Param("res", "in"), Param("res.s0", "dim", "int64_t"))),
    "scale_mask": (scale_mask, (Param("mask", "in"), Param("scale", "scalar"))),
    "in_place": (in_place, ()),
    "two_stores": (two_stores, (Param("d", "out"),)),
}
ROLES = {"in_place": "inout"}
HEADS = ("one", "heads", "gqa")


@dataclass(frozen=True, slots=True)
class Form:
    """a, b: "n" as written in the formula, "t" transposed in memory."""

    a: str = "n"
    b: str = "n"
    epilogue: str = "plain"
    heads: str = "one"
    init: float = 0.0
    row: bool = True

    def __str__(self) -> str:
        return f"{self.a}{self.b}-{self.epilogue}-{self.heads}{'' if self.row else '-gemv'}"


def batch_of(form: Form) -> tuple[tuple[str, Affine], ...]:
    return {"one": (), "heads": (("h", S("heads")),),
            "gqa": (("h", S("heads")), ("g", S("group")))}[form.heads]


def trace_of(form: Form) -> OpTrace:
    """c[h, g, i, j] = f(sum[r<k](a[h, g, i, r] * b[h, r, j])), b shared by a group."""
    body, batch = BodyBuilder(), batch_of(form)
    row = I if form.row else Affine()
    a_index = row * S("a.s0") + R if form.a == "n" else R * S("a.s0") + row
    b_index = R * S("b.s0") + J if form.b == "n" else J * S("b.s0") + R
    c_index = row * S("c.s0") + J
    for binder, _ in batch:
        a_index, c_index = (x + S(binder) * S(f"{p}.{binder}")
                            for x, p in ((a_index, "a"), (c_index, "c")))
        if binder == "h":
            b_index = b_index + H * S("b.h")
    product = body.add(Op.MUL, body.add(Op.LOAD, imm=("a", a_index)),
                       body.add(Op.LOAD, imm=("b", b_index)))
    total = body.add(Op.REDUCE, body.const(form.init), product, imm=("sum", "r", K))
    make, extra = EPILOGUES[form.epilogue]
    domain = (*batch, *((("i", M),) if form.row else ()), ("j", N))
    stores = tuple(Store(p, c_index, v, domain) for p, v in zip("cd", make(body, total)))
    steps = [f"{p}.{s}" for p in "abc" for s in ("s0", *(x for x, _ in batch)) if f"{p}.{s}" != "b.g"]
    dims = [*("m", "n", "k", "heads", "group"), *steps]
    params = (Param("a", "in"), Param("b", "in"), Param("c", ROLES.get(form.epilogue, "out")), *extra,
              *(Param(d, "dim", "int64_t") for d in dims))
    return OpTrace("product", params, tuple(body.body), stores)


def operands(form: Form, m: int, n: int, k: int, heads: int = 2, group: int = 3,
             seed: int = 0, pad: int = PAD) -> dict:
    """Arrays and sizes for a trace; rows are `pad` longer than needed, unused space is NaN."""
    rng = np.random.default_rng(seed)
    shapes = {"a": (m, k) if form.a == "n" else (k, m), "b": (k, n) if form.b == "n" else (n, k),
              "c": (m, n)}
    many = {"one": {}, "heads": {"h": heads}, "gqa": {"h": heads, "g": group}}[form.heads]
    out: dict = {"m": m, "n": n, "k": k, "heads": heads, "group": group}
    for name, (rows, width) in shapes.items():
        pitch = max(width + pad, 1)
        size = rows * pitch
        for binder in reversed([x for x in many if (name, x) != ("b", "g")]):
            out[f"{name}.{binder}"] = size
            size *= many[binder]
        out[f"{name}.s0"] = pitch
        values = rng.standard_normal(size, dtype=np.float32)
        values.reshape(-1, pitch)[:, width:] = np.nan
        out[name] = values[: max(size - pitch + width, 0)].copy()  # the last row has nothing behind it
    if form.epilogue == "bias_silu":
        out["bias"] = rng.standard_normal(n, dtype=np.float32)
    if form.epilogue == "residual":
        out |= {"res.s0": n, "res": rng.standard_normal(m * n, dtype=np.float32)}
    if form.epilogue == "scale_mask":
        mask = rng.choice(np.array([0.0, -np.inf], np.float32), max(0, m + n - 1))
        out |= {"scale": 0.125, "mask": mask}
    out["c"].fill(7.0)
    if form.epilogue == "two_stores":
        out["d"] = out["c"].copy()
    return out


FORMS = [Form(a, b) for a in "nt" for b in "nt"] + [
    Form(b=b, epilogue=e) for b in "nt" for e in EPILOGUES if e != "plain"] + [
    Form(b=b, heads=h) for b in "nt" for h in ("heads", "gqa")] + [
    Form(b=b, row=False) for b in "nt"]


def small(isa: Isa) -> TuningParams:
    """Blocks so small that a few dozen elements cross all their edges."""
    params = default_params(isa)
    return replace(params, kc=16, mc=2 * params.mr, nc=2 * params.nr, few=3, swept=5, near=0,
                   sweep_width=48)
