//! The operators of the catalogue in Rust: they lift to the traces of the C functions.
#![allow(clippy::missing_safety_doc, clippy::too_many_arguments)]

macro_rules! map {
    ($name:ident, $x:ident, $value:expr) => {
        #[no_mangle]
        pub unsafe extern "C" fn $name(x: *const f32, out: *mut f32, n: usize) {
            for i in 0..n {
                let $x = *x.add(i);
                *out.add(i) = $value;
            }
        }
    };
}

macro_rules! both {
    ($name:ident, $a:ident, $b:ident, $value:expr) => {
        #[no_mangle]
        pub unsafe extern "C" fn $name(a: *const f32, b: *const f32, out: *mut f32, n: usize) {
            for i in 0..n {
                let ($a, $b) = (*a.add(i), *b.add(i));
                *out.add(i) = $value;
            }
        }
    };
}

macro_rules! fold {
    ($name:ident, $start:expr, $acc:ident, $x:ident, $value:expr) => {
        #[no_mangle]
        pub unsafe extern "C" fn $name(x: *const f32, n: usize) -> f32 {
            let mut $acc: f32 = $start;
            for i in 0..n {
                let $x = *x.add(i);
                $acc = $value;
            }
            $acc
        }
    };
}

both!(scalar_vec_add, a, b, a + b);
both!(scalar_vec_sub, a, b, a - b);
both!(scalar_vec_mul, a, b, a * b);
both!(scalar_swiglu, gate, up, gate / (1.0 + (-gate).exp()) * up);
map!(scalar_silu, x, x / (1.0 + (-x).exp()));
map!(scalar_gelu, x, 0.5 * x * (1.0 + (0.7978845608 * (x + 0.044715 * x * x * x)).tanh()));
map!(scalar_relu, x, if 0.0 > x { 0.0 } else { x });
map!(scalar_tanh, x, x.tanh());
map!(scalar_exp, x, x.exp());
fold!(scalar_vec_sum, 0.0, acc, x, acc + x);
fold!(scalar_vec_max, f32::NEG_INFINITY, acc, x, if x > acc { x } else { acc });
fold!(scalar_vec_sum_squares, 0.0, acc, x, acc + x * x);

#[no_mangle]
pub unsafe extern "C" fn scalar_vec_scale(x: *mut f32, s: f32, n: usize) {
    for i in 0..n {
        *x.add(i) = *x.add(i) * s;
    }
}

#[no_mangle]
pub unsafe extern "C" fn scalar_vec_axpy(a: f32, x: *const f32, y: *mut f32, n: usize) {
    for i in 0..n {
        *y.add(i) = *y.add(i) + a * *x.add(i);
    }
}

unsafe fn dot(a: *const f32, b: *const f32, n: usize, step: usize) -> f32 {
    let mut acc = 0.0;
    for p in 0..n {
        acc += *a.add(p) * *b.add(p * step);
    }
    acc
}

#[no_mangle]
pub unsafe extern "C" fn scalar_vec_dot(a: *const f32, b: *const f32, n: usize) -> f32 {
    dot(a, b, n, 1)
}

#[no_mangle]
pub unsafe extern "C" fn scalar_softmax(x: *const f32, out: *mut f32, m: usize, n: usize) {
    for i in 0..m {
        let (row, dst) = (x.add(i * n), out.add(i * n));
        let mut top = f32::NEG_INFINITY;
        for j in 0..n {
            top = if *row.add(j) > top { *row.add(j) } else { top };
        }
        let mut total = 0.0;
        for j in 0..n {
            let e = (*row.add(j) - top).exp();
            *dst.add(j) = e;
            total += e;
        }
        for j in 0..n {
            *dst.add(j) = *dst.add(j) / total;
        }
    }
}

#[no_mangle]
pub unsafe extern "C" fn scalar_rms_norm(
    x: *const f32, w: *const f32, out: *mut f32, m: usize, n: usize, eps: f32,
) {
    for i in 0..m {
        let (row, dst) = (x.add(i * n), out.add(i * n));
        let rms = (dot(row, row, n, 1) / (n as isize as f32) + eps).sqrt();
        for j in 0..n {
            *dst.add(j) = *row.add(j) * *w.add(j) / rms;
        }
    }
}

#[no_mangle]
pub unsafe extern "C" fn scalar_layer_norm(
    x: *const f32, w: *const f32, b: *const f32, out: *mut f32, m: usize, n: usize, eps: f32,
) {
    for i in 0..m {
        let (row, dst) = (x.add(i * n), out.add(i * n));
        let mut total = 0.0;
        for j in 0..n {
            total += *row.add(j);
        }
        let mean = total / (n as isize as f32);
        let mut squares = 0.0;
        for j in 0..n {
            let centred = *row.add(j) - mean;
            squares += centred * centred;
        }
        let deviation = (squares / (n as isize as f32) + eps).sqrt();
        for j in 0..n {
            *dst.add(j) = (*row.add(j) - mean) / deviation * *w.add(j) + *b.add(j);
        }
    }
}

#[no_mangle]
pub unsafe extern "C" fn scalar_gemv(a: *const f32, x: *const f32, y: *mut f32, m: usize, n: usize) {
    for i in 0..m {
        *y.add(i) = dot(a.add(i * n), x, n, 1);
    }
}

#[no_mangle]
pub unsafe extern "C" fn scalar_gemm(
    a: *const f32, b: *const f32, c: *mut f32, m: usize, n: usize, k: usize,
) {
    for i in 0..m {
        for j in 0..n {
            *c.add(i * n + j) = dot(a.add(i * k), b.add(j), k, n);
        }
    }
}

#[no_mangle]
pub unsafe extern "C" fn scalar_gemm_bt(
    a: *const f32, b: *const f32, c: *mut f32, m: usize, n: usize, k: usize,
) {
    for i in 0..m {
        for j in 0..n {
            *c.add(i * n + j) = dot(a.add(i * k), b.add(j * k), k, 1);
        }
    }
}

#[no_mangle]
pub unsafe extern "C" fn scalar_gemm_bias(
    a: *const f32, b: *const f32, bias: *const f32, c: *mut f32, m: usize, n: usize, k: usize,
) {
    for i in 0..m {
        for j in 0..n {
            *c.add(i * n + j) = dot(a.add(i * k), b.add(j), k, n) + *bias.add(j);
        }
    }
}

/// Turns the pairs (lo, hi) of one head: element j of each is `step*j` after its start.
unsafe fn turn(
    lo: *const f32, hi: usize, dst: *mut f32, cos: *const f32, sin: *const f32, d: usize, step: usize,
) {
    for j in 0..d {
        let (c, s) = (*cos.add(j), *sin.add(j));
        let (u, v) = (*lo.add(step * j), *lo.add(step * j + hi));
        *dst.add(step * j) = u * c - v * s;
        *dst.add(step * j + hi) = v * c + u * s;
    }
}

macro_rules! rope {
    ($name:ident, $d:ident, $hi:expr, $step:expr $(, $pos:ident)?) => {
        #[no_mangle]
        pub unsafe extern "C" fn $name(
            x: *const f32, cos: *const f32, sin: *const f32, out: *mut f32, t: usize, h: usize,
            $d: usize $(, $pos: usize)?
        ) {
            for i in 0..t {
                for a in 0..h {
                    let (head, row) = ((i * h + a) * 2 * $d, (i $(+ $pos)?) * $d);
                    turn(x.add(head), $hi, out.add(head), cos.add(row), sin.add(row), $d, $step);
                }
            }
        }
    };
}

rope!(scalar_rope, d, d, 1);
rope!(scalar_rope_interleaved, d, 1, 2);
rope!(scalar_rope_with_pos, d, d, 1, pos);
rope!(scalar_rope_with_pos_interleaved, d, 1, 2, pos);
