"""Functions compiled from Rust lift to the traces of the C functions."""

import shutil
import subprocess

import pytest

from gllm_kernels.lift.lifter import lift
from gllm_kernels.lift.store import stored_trace
from gllm_kernels.scalar.catalog import CATALOG

RUSTC = shutil.which("rustc")
pytestmark = pytest.mark.skipif(RUSTC is None, reason="compiles Rust: rustc is not installed")
SOURCE = """
#![allow(clippy::missing_safety_doc)]
#[no_mangle] pub unsafe extern "C" fn scalar_vec_mul(a: *const f32, b: *const f32, out: *mut f32, n: usize)
{ for i in 0..n { *out.add(i) = *a.add(i) * *b.add(i); } }
#[no_mangle] pub unsafe extern "C" fn scalar_vec_sum(x: *const f32, n: usize) -> f32
{ let mut s = 0.0f32; for i in 0..n { s += *x.add(i); } s }
#[no_mangle] pub unsafe extern "C" fn scalar_vec_dot(a: *const f32, b: *const f32, n: usize) -> f32
{ let mut s = 0.0f32; for i in 0..n { s += *a.add(i) * *b.add(i); } s }
#[no_mangle] pub unsafe extern "C" fn scalar_rms_norm(x: *const f32, w: *const f32, out: *mut f32, m: usize, n: usize, eps: f32)
{ let mut i = 0; while i < m { let r = x.add(i * n); let mut s = 0.0f32;
  let mut j = 0; while j < n { s += *r.add(j) * *r.add(j); j += 1; }
  let d = (s / (n as isize as f32) + eps).sqrt();
  let mut j = 0; while j < n { *out.add(i * n + j) = *r.add(j) * *w.add(j) / d; j += 1; } i += 1; } }
#[no_mangle] pub unsafe extern "C" fn scalar_gemm(a: *const f32, b: *const f32, c: *mut f32, m: usize, n: usize, k: usize)
{ let mut i = 0; while i < m { let mut j = 0; while j < n { let mut s = 0.0f32;
  let mut p = 0; while p < k { s += *a.add(i * k + p) * *b.add(p * n + j); p += 1; }
  *c.add(i * n + j) = s; j += 1; } i += 1; } }
"""
NAMES = ("vec_mul", "vec_sum", "vec_dot", "rms_norm", "gemm")


@pytest.mark.parametrize("level", [1, 2])
def test_rust_functions_lift_to_the_traces_of_the_catalogue(tmp_path, level):
    library = tmp_path / f"rust{level}.so"
    command = [
        RUSTC, "--crate-type=cdylib", "-C", f"opt-level={level}", "-C", "no-vectorize-loops",
        "-C", "no-vectorize-slp", "-C", "panic=abort", "-A", "warnings", "-", "-o", str(library),
    ]  # fmt: skip
    subprocess.run(command, input=SOURCE, text=True, check=True)
    found = {n: lift(library, CATALOG.lookup(n).declaration) for n in NAMES}
    assert found == {n: stored_trace(n) for n in NAMES}
