//! The operators of the catalogue in Zig: they lift to the traces of the C functions.
const inf = @import("std").math.inf(f32);

export fn scalar_vec_add(a: [*]const f32, b: [*]const f32, out: [*]f32, n: usize) void {
    for (0..n) |i| out[i] = a[i] + b[i];
}

export fn scalar_vec_sub(a: [*]const f32, b: [*]const f32, out: [*]f32, n: usize) void {
    for (0..n) |i| out[i] = a[i] - b[i];
}

export fn scalar_vec_mul(a: [*]const f32, b: [*]const f32, out: [*]f32, n: usize) void {
    for (0..n) |i| out[i] = a[i] * b[i];
}

export fn scalar_vec_scale(x: [*]f32, s: f32, n: usize) void {
    for (0..n) |i| x[i] = x[i] * s;
}

export fn scalar_vec_axpy(a: f32, x: [*]const f32, y: [*]f32, n: usize) void {
    for (0..n) |i| y[i] = y[i] + a * x[i];
}

export fn scalar_silu(x: [*]const f32, out: [*]f32, n: usize) void {
    for (0..n) |i| out[i] = x[i] / (1 + @exp(-x[i]));
}

export fn scalar_relu(x: [*]const f32, out: [*]f32, n: usize) void {
    for (0..n) |i| out[i] = if (0 > x[i]) 0 else x[i];
}

export fn scalar_exp(x: [*]const f32, out: [*]f32, n: usize) void {
    for (0..n) |i| out[i] = @exp(x[i]);
}

export fn scalar_swiglu(gate: [*]const f32, up: [*]const f32, out: [*]f32, n: usize) void {
    for (0..n) |i| out[i] = gate[i] / (1 + @exp(-gate[i])) * up[i];
}

export fn scalar_vec_sum(x: [*]const f32, n: usize) f32 {
    var acc: f32 = 0;
    for (0..n) |i| acc += x[i];
    return acc;
}

export fn scalar_vec_max(x: [*]const f32, n: usize) f32 {
    var acc: f32 = -inf;
    for (0..n) |i| acc = if (x[i] > acc) x[i] else acc;
    return acc;
}

export fn scalar_vec_sum_squares(x: [*]const f32, n: usize) f32 {
    var acc: f32 = 0;
    for (0..n) |i| acc += x[i] * x[i];
    return acc;
}

inline fn dot(a: [*]const f32, b: [*]const f32, n: usize, step: usize) f32 {
    var acc: f32 = 0;
    for (0..n) |p| acc += a[p] * b[p * step];
    return acc;
}

export fn scalar_vec_dot(a: [*]const f32, b: [*]const f32, n: usize) f32 {
    return dot(a, b, n, 1);
}

export fn scalar_rms_norm(x: [*]const f32, w: [*]const f32, out: [*]f32, m: usize, n: usize, eps: f32) void {
    for (0..m) |i| {
        const row = x + i * n;
        const size: f32 = @floatFromInt(@as(isize, @bitCast(n)));
        const rms = @sqrt(dot(row, row, n, 1) / size + eps);
        for (0..n) |j| out[i * n + j] = row[j] * w[j] / rms;
    }
}

export fn scalar_gemv(a: [*]const f32, x: [*]const f32, y: [*]f32, m: usize, n: usize) void {
    for (0..m) |i| y[i] = dot(a + i * n, x, n, 1);
}

export fn scalar_gemm(a: [*]const f32, b: [*]const f32, c: [*]f32, m: usize, n: usize, k: usize) void {
    for (0..m) |i| for (0..n) |j| {
        c[i * n + j] = dot(a + i * k, b + j, k, n);
    };
}

export fn scalar_gemm_bt(a: [*]const f32, b: [*]const f32, c: [*]f32, m: usize, n: usize, k: usize) void {
    for (0..m) |i| for (0..n) |j| {
        c[i * n + j] = dot(a + i * k, b + j * k, k, 1);
    };
}

export fn scalar_gemm_bias(a: [*]const f32, b: [*]const f32, bias: [*]const f32, c: [*]f32, m: usize, n: usize, k: usize) void {
    for (0..m) |i| for (0..n) |j| {
        c[i * n + j] = dot(a + i * k, b + j, k, n) + bias[j];
    };
}
