"""Every operator of the catalogue lifts from the committed object, bit for bit."""

import json
import subprocess
import sys

import pytest

from gllm_kernels.errors import LiftError, UnsupportedOpError
from gllm_kernels.lift.lifter import CATALOG_OBJECT, catalogue_entries, lift, report
from gllm_kernels.lift.store import TRACES, stored_trace, stored_traces, trace_of
from gllm_kernels.scalar.catalog import CATALOG
from gllm_kernels.trace.pattern import ComputePattern, pattern_of
from gllm_kernels.trace.shapes import param_shape
from gllm_kernels.trace.spec import check

P = ComputePattern
PATTERNS = {
    P.ELEMENTWISE: "vec_add vec_sub vec_mul vec_scale vec_axpy silu gelu relu tanh exp swiglu",
    P.REDUCTION: "vec_dot vec_sum vec_max vec_sum_squares",
    P.NORM_LIKE: "softmax rms_norm layer_norm",
    P.INJECTIVE: "rope rope_interleaved rope_with_pos rope_with_pos_interleaved",
    P.GEMV: "gemv",
    P.GEMM: "gemm gemm_bt gemm_bias",
}
EXPECTED = {name: pattern for pattern, names in PATTERNS.items() for name in names.split()}
LIFTED = [op for op in CATALOG if not op.opaque]


def test_no_operator_is_missing_here():
    assert {op.name for op in LIFTED} == set(EXPECTED)


@pytest.mark.parametrize("op", LIFTED, ids=lambda op: op.name)
def test_operator_lifts_and_equals_the_function(op):
    trace = check(lift(CATALOG_OBJECT, op.declaration))
    assert trace.name == op.name
    assert pattern_of(trace) is EXPECTED[op.name]


@pytest.mark.parametrize("op", [op for op in CATALOG if op.opaque], ids=lambda op: op.name)
def test_an_opaque_operator_is_refused(op):
    with pytest.raises(LiftError, match="with gk.gather or numpy|with gk.argmax or numpy"):
        lift(CATALOG_OBJECT, op.declaration)


def traced(name):
    return lift(CATALOG_OBJECT, CATALOG.lookup(name).declaration, verify=False)


def test_canonical_form():
    text = {name: str(traced(name)).split("\n", 1)[1] for name in ("gemm", "relu", "vec_axpy")}
    assert text["gemm"] == (
        "  c[i0*n + i1] = sum[r0 < k](a[i0*k + r0]*b[n*r0 + i1])  for i0 < m, i1 < n"
    )
    assert text["relu"] == "  out[i0] = max(0.0, x[i0])  for i0 < n"
    assert text["vec_axpy"] == "  y[i0] = a*x[i0] + y[i0]  for i0 < n"
    assert traced("vec_axpy").param("y").role == "inout"
    assert traced("vec_axpy").param("x").role == "in"


def test_two_stores_of_a_rotation_share_the_domain():
    rope = traced("rope_with_pos")
    first, second = rope.stores
    assert first.domain == second.domain
    assert [b for b, _ in first.domain] == ["i0", "i1", "i2"]
    assert ", ".join(map(str, param_shape(rope, "cos"))) == "pos + t, d"
    assert ", ".join(map(str, param_shape(rope, "x"))) == "t, h, 2*d"


def test_the_report_shows_trace_pattern_shapes_and_times():
    text = report(CATALOG_OBJECT, CATALOG.lookup("gemv").declaration)
    for part in ("pattern: gemv", "a: m x n", "one symbolic execution:", "every bit equal"):
        assert part in text


def test_stored_traces_are_what_the_object_lifts_to():
    stored = json.loads(TRACES.read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(catalogue_entries()))
    assert {n: trace_of(e["trace"]) for n, e in stored.items()} == stored_traces()


def test_a_trace_that_is_not_stored_is_named():
    with pytest.raises(UnsupportedOpError, match=r"no stored trace of 'mish'; stored are exp"):
        stored_trace("mish")


def test_reading_stored_traces_does_not_import_the_decoder():
    code = (
        "import sys; from gllm_kernels.lift.store import stored_trace;"
        "stored_trace('gemm'); sys.exit('iced_x86' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
