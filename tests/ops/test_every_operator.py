"""Every operator of the catalogue, on every ISA of this host, against its own scalar function.

Arrays lie between inaccessible pages, once against the upper and once against the lower one.
"""

import numpy as np
import pytest
from guard import guarded, guarded_copy

from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.config import config
from gllm_kernels.ops import Op
from gllm_kernels.scalar import CATALOG
from gllm_kernels.trace.pattern import ComputePattern

ISAS = [isa.name for isa in host_isas()]
LINEAR = (ComputePattern.GEMM, ComputePattern.GEMV, ComputePattern.REDUCTION)
# around the lanes of both widths, around unrolled blocks, and odd
FLAT = (0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 257, 1000)
ROWS = ((0, 5), (1, 0), (1, 1), (3, 7), (2, 16), (5, 17), (1, 33), (7, 64), (2, 300))
MNK = ((0, 3, 2), (2, 0, 3), (3, 2, 0), (1, 1, 1), (1, 33, 17), (2, 16, 64), (5, 7, 9), (6, 16, 8),
       (7, 17, 31), (13, 31, 5), (14, 32, 16), (15, 33, 40), (1, 100, 513), (29, 65, 70))
HEADS = ((0, 1, 4), (1, 1, 1), (2, 3, 4), (3, 2, 8), (1, 4, 9), (5, 1, 16), (2, 2, 33))
SIZES = {("n",): [(n,) for n in FLAT], ("m", "n"): ROWS, ("m", "n", "k"): MNK, ("t", "n"): ROWS,
         ("t", "h", "d"): HEADS, ("t", "h", "d", "pos"): [(*s, p) for s in HEADS for p in (0, 5)]}
SPECIALS = np.array([0.0, -0.0, 1e-45, -1e-40, 1e38, -1e38, np.inf, -np.inf, np.nan, 88.8, -104.0,
                     -1.0, 1.0, 9.02, -9.02, 1e-4, -1e-4], np.float32)


def sizes_of(op):
    dims = op.names("dim")
    return [dict(zip(dims, row)) for row in SIZES[dims]]


def arguments(op, dims, rng):
    """Arrays of the operator's shapes, its scalars, and the dimensions no shape tells."""
    known = {**dims, "v": 11}
    arrays = {}
    for name in op.inputs:
        shape = tuple(s.evaluate(known) for s in op.shape(name))
        integers = op.dtype(name) == "int32"
        arrays[name] = (rng.integers(0, 11, shape, np.int32) if integers
                        else rng.standard_normal(shape, np.float32))
    named = {s: 0.37 for s in op.names("scalar")}
    named |= {d: v for d, v in dims.items() if d == "pos"}
    return arrays, named


def reference(op, arrays, named):
    with config(isa="scalar"):
        return op(*(a.copy() for a in arrays.values()), **named)


def magnitude(op, arrays, named, want):
    """What an error is measured against: the sum of absolute terms where terms are summed."""
    if op.operator.pattern not in LINEAR:
        return np.abs(want)
    return np.abs(reference(op, {n: np.abs(a) for n, a in arrays.items()}, named))


def check(op, got, want, scale):
    assert np.shape(got) == np.shape(want)
    if op.operator.trace is None:
        np.testing.assert_array_equal(got, want)
        return
    finite = np.isfinite(want)
    np.testing.assert_array_equal(np.where(finite, 0, got), np.where(finite, 0, want))
    error = np.abs(np.where(finite, got, 0) - np.where(finite, want, 0))
    assert (error <= 1e-4 * np.where(finite, scale, 0) + 1e-6).all(), error.max()


@pytest.mark.parametrize("at", ("end", "start"))
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [row.name for row in CATALOG])
def test_equals_the_scalar_function_at_every_size(name, isa, at):
    op = Op.named(name)
    for dims in sizes_of(op.operator):
        arrays, named = arguments(op.operator, dims, np.random.default_rng(hash(str(dims)) % 1000))
        want = reference(op, arrays, named)
        held = [guarded_copy(a, at) for a in arrays.values()]
        out = {}
        if op.operator.names("out"):
            shape, dtype = np.shape(want), np.asarray(want).dtype
            out = {"out": guarded(shape, dtype, at, fill=np.nan if dtype == np.float32 else 0)}
        with config(isa=isa):
            got = op(*held, **named, **out)
        check(op, got, want, magnitude(op, arrays, named, want))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [r.name for r in CATALOG if Op.named(r.name).operator.is_flat])
def test_special_values_go_where_the_scalar_function_sends_them(name, isa):
    op = Op.named(name)
    count = len(op.operator.inputs)
    grid = np.meshgrid(*[SPECIALS] * count)
    arrays = {n: np.tile(g.ravel(), 3) for n, g in zip(op.operator.inputs, grid)}
    named = {s: 0.37 for s in op.operator.names("scalar")}
    want = reference(op, arrays, named)
    with config(isa=isa):
        got = op(*(a.copy() for a in arrays.values()), **named)
    check(op, got, want, np.abs(want))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["softmax", "rms_norm", "layer_norm", "vec_sum", "vec_dot"])
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 5, 40])
def test_one_special_value_in_a_row_spreads_as_in_the_scalar_function(name, isa, special, position):
    op = Op.named(name)
    dims = {"m": 1, "n": 41}
    arrays, named = arguments(op.operator, {d: dims[d] for d in op.operator.names("dim")},
                              np.random.default_rng(3))
    next(iter(arrays.values())).flat[position] = special
    want = reference(op, arrays, named)
    with config(isa=isa):
        got = op(*arrays.values(), **named)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))


@pytest.mark.parametrize("isa", ISAS)
def test_the_maximum_ignores_nan_as_the_scalar_function_does(isa):
    for position in (0, 5, 40):
        x = np.random.default_rng(4).standard_normal(41, np.float32)
        x[position] = np.nan
        with config(isa="scalar"):
            want = Op.named("vec_max")(x)
        with config(isa=isa):
            assert Op.named("vec_max")(x) == want
