"""Random structured kernels: the interpreter and machine code leave the same memory."""

from __future__ import annotations

import os
import random
from dataclasses import replace

import numpy as np
import pytest
from machine import ISAS, agree

from gllm_kernels.codegen.isa import x86
from gllm_kernels.codegen.kernel import I64, K, KernelBuilder, KParam
from gllm_kernels.trace.affine import Affine

SEEDS = range(int(os.environ.get("FUZZ_FROM", "0")), int(os.environ.get("FUZZ_TO", "200")))
FLOAT, BITS, MASK = "float", "bits", "mask"  # bit operations never see a NaN's payload
ELEMENTS = 16  # vectors in each buffer
PARAMS = (KParam("x", "ptr"), KParam("i", "ptr"), KParam("out", "ptr"), KParam("n", I64),
          KParam("m", I64), KParam("s", "f32"))

# fmt: off
OPS = {
    FLOAT: [(K.VADD, (FLOAT, FLOAT)), (K.VSUB, (FLOAT, FLOAT)), (K.VMUL, (FLOAT, FLOAT)),
            (K.VDIV, (FLOAT, FLOAT)), (K.VMAX, (FLOAT, FLOAT)), (K.VMIN, (FLOAT, FLOAT)),
            (K.VSQRT, (FLOAT,)), (K.VROUND, (FLOAT,)), (K.VI2F, (BITS,)),
            *[(K.VFMA, (FLOAT,) * 3)] * 6, *[(K.VFNMA, (FLOAT,) * 3)] * 3,
            (K.SELECT, (MASK, FLOAT, FLOAT)), (K.HSUM, (FLOAT,)), (K.HMAX, (FLOAT,)),
            (K.UNPACKLO32, (FLOAT, FLOAT)), (K.UNPACKHI64, (FLOAT, FLOAT))],
    BITS:  [(K.VAND, (BITS, BITS)), (K.VOR, (BITS, BITS)), (K.VXOR, (BITS, BITS)),
            (K.VANDN, (BITS, BITS)), (K.VIADD, (BITS, BITS)), (K.VISUB, (BITS, BITS)),
            (K.VF2I, (FLOAT,)), (K.SPLAT, (I64,)), (K.SELECT, (MASK, BITS, BITS)),
            (K.UNPACKHI32, (BITS, BITS)), (K.UNPACKLO64, (BITS, BITS))],
    MASK:  [(K.VLT, (FLOAT, FLOAT)), (K.VLE, (FLOAT, FLOAT)), (K.VEQ, (FLOAT, FLOAT)),
            (K.VUNORD, (FLOAT, FLOAT)), (K.MAND, (MASK, MASK)), (K.MOR, (MASK, MASK)),
            (K.MNOT, (MASK,)), (K.FIRST, (I64,))],
    I64:   [(K.IADD, (I64, I64)), (K.ISUB, (I64, I64)), (K.IMUL, (I64, I64)),
            (K.IAND, (I64, I64)), (K.IMIN, (I64, I64)), (K.IMAX, (I64, I64)), (K.MBITS, (MASK,))],
}
# fmt: on


class Maker:
    """Builds one kernel from a seed; `pool` holds the values in scope by sort."""

    def __init__(self, seed: int, lanes: int) -> None:
        self.random, self.lanes = random.Random(seed), lanes
        self.b = KernelBuilder(f"fuzz{seed}", lanes, PARAMS)
        self.base = {p.name: self.b.arg(p.name) for p in PARAMS[:3]}
        self.pool = {FLOAT: [self.b.arg("s"), self.load("x")], BITS: [self.load("i")],
                     I64: [self.b.arg("n"), self.b.arg("m")], MASK: []}
        self.pool[MASK].append(self.b.emit(K.FIRST, self.pool[I64][0]))

    def slot(self):
        """An index of a vector inside the buffers."""
        choice = self.random.random()
        if choice < 0.5:
            return self.b.int(self.random.randrange(ELEMENTS) * self.lanes), 0
        number = self.b.emit(K.IAND, self.pick(I64), self.b.int(7))
        if choice < 0.8:
            return number * self.lanes + self.random.choice((0, 3)), 4 * self.random.randrange(9)
        return number * 2 * self.lanes + 4, -16

    def load(self, name):
        if not hasattr(self, "pool"):
            return self.b.load(self.base[name], self.b.int(0))
        index, disp = self.slot()
        kind = self.random.random()
        if kind < 0.3:
            return self.b.broadcast(self.base[name], index, disp=disp)
        mask = self.pick(MASK) if kind < 0.45 else None
        return self.b.load(self.base[name], index, disp=disp, mask=mask)

    def pick(self, sort):
        """A value in scope, mostly a recent one, sometimes a fresh constant."""
        pool, chance = self.pool[sort], self.random.random()
        if chance < 0.15 and sort == FLOAT:
            return self.b.const(self.random.choice((0.0, -0.0, 1.0, 0.3, -2.5, float("inf"))))
        if chance < 0.15 and sort == BITS:
            return self.b.bits(self.random.choice((0, 1, 0xFFFFFFFF, 0x80000000, 12345)))
        if chance < 0.25 and sort == I64:
            return self.b.int(self.random.choice((0, 1, -1, 3, 4, 8, 100, -7, 1 << 33, 127)))
        return self.random.choice(pool[-6:] if self.random.random() < 0.6 else pool)

    def value(self, sort):
        if sort in (FLOAT, BITS) and self.random.random() < 0.3:
            return self.load("x" if sort == FLOAT else "i")
        if sort == BITS and self.random.random() < 0.15:
            op = self.random.choice((K.VSHL, K.VSHR, K.VSAR))
            return self.b.emit(op, self.pick(BITS), imm=self.random.randrange(32))
        if sort in (FLOAT, BITS) and self.random.random() < 0.06:
            lanes = tuple(self.random.randrange(self.lanes) for _ in range(self.lanes))
            return self.b.emit(K.PERMUTE, self.pick(sort), imm=lanes)
        if sort == FLOAT and self.random.random() < 0.05:
            power = self.b.emit(K.VMIN, self.pick(FLOAT), self.b.const(300.0))
            power = self.b.emit(K.VMAX, power, self.b.const(-300.0))
            return self.b.emit(K.VSCALEF, self.pick(FLOAT), power)
        if sort == I64 and self.random.random() < 0.1:
            top = self.b.emit(K.IAND, self.pick(I64), self.b.int((1 << 62) - 1))
            low = self.b.emit(K.IAND, self.pick(I64), self.b.int(255))
            by = low + 1 if self.random.random() < 0.6 else self.b.int(self.random.choice((4, 7)))
            return top / by
        op, sorts = self.random.choice(OPS[sort])
        return self.b.emit(op, *(self.pick(s) for s in sorts))

    def store(self):
        sort = self.random.choice((FLOAT, FLOAT, BITS))
        name = "out" if sort == FLOAT and self.random.random() < 0.7 else None
        name = name or ("x" if sort == FLOAT else "i")
        index, disp = self.slot()
        mask = self.pick(MASK) if self.random.random() < 0.3 else None
        self.b.store(self.base[name], index, self.pick(sort), disp=disp, mask=mask)

    def block(self, depth, size):
        for _ in range(size):
            chance = self.random.random()
            if chance < 0.12 and depth < 3:
                self.loop(depth)
            elif chance < 0.17 and depth < 3:
                with self.scope(), self.b.when_less(self.pick(I64), self.pick(I64)):
                    self.block(depth + 1, self.random.randrange(1, 6))
            elif chance < 0.27:
                self.store()
            else:
                sort = self.random.choice((FLOAT,) * 5 + (BITS, BITS, MASK, I64, I64))
                self.pool[sort].append(self.value(sort))

    def loop(self, depth):
        sorts = self.random.choices((FLOAT, FLOAT, BITS, MASK, I64), k=self.random.randrange(6))
        inits = [self.pick(s) for s in sorts]
        step = self.random.choice((1, 1, 2, 5))
        hi = self.random.choice((2, 3, 0, self.b.emit(K.IAND, self.pick(I64), self.b.int(3))))
        with self.scope():
            with self.b.loop(self.random.choice((0, 0, 1, -2)), hi, step, *inits) as loop:
                self.pool[I64].append(loop.iv)
                for sort, phi in zip(sorts, loop.phis, strict=True):
                    self.pool[sort].append(phi)
                self.block(depth + 1, self.random.randrange(1, 12))
                loop.yields(*(self.pick(s) for s in sorts))
        for sort, result in zip(sorts, loop.results, strict=True):
            self.pool[sort].append(result)

    def scope(self):
        return Scope(self)

    def kernel(self):
        self.block(0, self.random.randrange(4, 30))
        for sort in (FLOAT, BITS):
            for number, value in enumerate(self.pool[sort][-ELEMENTS + 2 :]):
                name = "out" if sort == FLOAT else "i"
                self.b.store(self.base[name], self.b.int(number * self.lanes), value)
        for number, value in enumerate(self.pool[I64][-8:]):
            self.b.store(self.base["i"], self.b.int((number + 8) * self.lanes),
                         self.b.emit(K.SPLAT, value))
        return self.b.build(Affine.const(1), 1)


class Scope:
    """Values made inside a region are forgotten at its end."""

    def __init__(self, maker):
        self.maker = maker

    def __enter__(self):
        self.sizes = {sort: len(pool) for sort, pool in self.maker.pool.items()}

    def __exit__(self, *error):
        for sort, size in self.sizes.items():
            del self.maker.pool[sort][size:]


def run_seed(seed, isa):
    """Build, run both ways with three sets of arguments, compare."""
    kernel = Maker(seed, isa.lanes).kernel()
    rng = np.random.default_rng(seed)
    size = (ELEMENTS + 4) * isa.lanes
    x = rng.standard_normal(size).astype(np.float32)
    x[rng.integers(0, size, 6)] = [np.nan, np.inf, -np.inf, -0.0, 1e-42, 3e38]
    i = rng.integers(-(1 << 31), 1 << 31, size).astype(np.int32)
    code = None
    for n, m in ((5, 2), (0, 1), (-3, 1 << 40)):
        code = agree(kernel, isa, {"x": x, "i": i, "out": np.zeros(size, np.float32), "n": n,
                                   "m": m, "s": 0.75}, code=code)
    return code


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
@pytest.mark.parametrize("seed", SEEDS)
def test_random_kernel(seed, isa):
    run_seed(seed, isa)


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
def test_random_kernels_with_few_registers(isa, monkeypatch):
    """Six vector, eight integer and three mask registers: nearly everything is spilled."""
    monkeypatch.setattr(x86, "INTEGERS", (*x86.INTEGERS[:5], *x86.INTEGERS[9:12]))
    monkeypatch.setattr(x86, "MASKS", x86.MASKS[:3])
    spills = sum(run_seed(seed, replace(isa, vregs=6)).spills for seed in SEEDS[: len(SEEDS) // 2])
    assert spills > 10 * len(SEEDS)
