"""Arrays in f16 and bf16: every load, store and conversion, between inaccessible pages."""

import numpy as np
import pytest
from guard import guarded, guarded_copy
from machine import ISAS, call

from gllm_kernels.codegen import interp, spec
from gllm_kernels.codegen.assemble import compile_kernel
from gllm_kernels.codegen.kernel import STORAGE, K, KernelBuilder, KParam, Mem
from gllm_kernels.codegen.strips import strips
from gllm_kernels.dtypes import SIZE, STORED
from gllm_kernels.trace.affine import Affine

NARROW = ("f16", "bf16")
each_isa = pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.name)
each_type = pytest.mark.parametrize("storage", NARROW)


def conversion(isa, source, target):
    """out[i] = x[i] for all units, in whole vectors and a masked rest."""
    b = KernelBuilder("convert", isa.lanes, (KParam("x", "ptr"), KParam("out", "ptr"),
                                             KParam("n", "i64")))
    x, out, (wide, narrow) = b.arg("x"), b.arg("out"), (SIZE[source], SIZE[target])

    def body(first, shift, count, accs):
        mask = None if count is None else b.emit(K.FIRST, count)
        value = b.load(x, first, wide, wide * shift, mask, source)
        b.store(out, first, value, narrow, narrow * shift, mask, target)
        return ()

    strips(b, b.emit(K.BEGIN), b.emit(K.END), 2, body)
    kernel = b.build(Affine.sym("n"), 1)
    spec.check(kernel)
    return kernel


def convert(isa, values, source, target):
    out = np.zeros(values.size, STORED[target])
    call(compile_kernel(conversion(isa, source, target), isa),
         {"x": values.astype(STORED[source], copy=False), "out": out, "n": values.size})
    return out


def same(got, want):
    """Equal bit for bit; any NaN equals any NaN."""
    nan = np.isnan(got.astype(np.float32)) & np.isnan(want.astype(np.float32))
    return np.array_equal(np.where(nan, 0, got.view(f"u{got.itemsize}")),
                          np.where(nan, 0, want.view(f"u{want.itemsize}")))


@each_type
@each_isa
def test_all_65536_values_widen_exactly_and_come_back(isa, storage):
    every = np.arange(1 << 16, dtype=np.uint16).view(STORED[storage])
    wide = convert(isa, every, storage, "float")
    assert same(wide, every.astype(np.float32))
    assert same(convert(isa, wide, "float", storage), every)


@each_type
@each_isa
def test_stores_round_to_nearest_even(isa, storage):
    """Every value, what lies half-way to the next one and just beside that, and random bits."""
    bits = np.arange(1 << 16, dtype=np.uint16).view(STORED[storage]).astype(np.float32)
    half = {"f16": 0x1000, "bf16": 0x8000}[storage]
    near = [bits.view(np.uint32) + np.uint32(half + step) for step in (-1, 0, 1)]
    denormal = np.arange(1 << 12, dtype=np.float32) * np.float32(2.0**-26)  # between f16 denormals
    random = np.random.default_rng(1).integers(0, 1 << 32, 1 << 16, np.uint32)
    values = np.concatenate([*near, random, denormal.view(np.uint32)]).view(np.float32)
    with np.errstate(all="ignore"):
        want = values.astype(STORED[storage])
    assert same(convert(isa, values, "float", storage), want)


@pytest.mark.parametrize("at", ("end", "start"))
@pytest.mark.parametrize("source,target", [("f16", "bf16"), ("bf16", "f16"), ("float", "bf16"),
                                           ("f16", "float")])
@each_isa
def test_a_rest_touches_nothing_behind_it(isa, source, target, at):
    kernel = conversion(isa, source, target)
    code = compile_kernel(kernel, isa)
    for size in range(2 * isa.lanes + 3):
        values = np.arange(size).astype(STORED[source])
        held, out = guarded_copy(values, at), guarded(size, STORED[target], at, fill=7)
        call(code, {"x": held, "out": out, "n": size})
        assert np.array_equal(out.astype(np.float32), np.arange(size))
        want = np.zeros(size, STORED[target])
        interp.run(kernel, {"x": values, "out": want, "n": size})
        assert np.array_equal(out, want)


@each_type
@each_isa
def test_one_element_to_all_lanes_and_lane_0_back(isa, storage):
    b = KernelBuilder("one", isa.lanes, (KParam("x", "ptr"), KParam("out", "ptr"),
                                         KParam("one", "ptr")))
    value = b.broadcast(b.arg("x"), b.int(3), 2, -2, storage)
    b.store(b.arg("out"), b.int(0), value)
    b.emit(STORAGE[storage][K.STORE1], b.arg("one"), b.int(0), value, imm=Mem(2, 0))
    kernel = b.build(Affine.const(1), 1)
    x = guarded_copy(np.array([1, 2, -3.25], STORED[storage]))
    out, one = guarded(isa.lanes), guarded(1, STORED[storage], "end", 0)
    call(compile_kernel(kernel, isa), {"x": x, "out": out, "one": one})
    assert (out == -3.25).all() and one[0] == np.float32(-3.25)
    interp.run(kernel, {"x": x, "out": out, "one": one})
    assert (out == -3.25).all() and one[0] == np.float32(-3.25)


def test_every_storage_type_has_every_access():
    for ops in STORAGE.values():
        assert [op.split(".")[0] for op in ops.values()] == list(STORAGE["float"])
