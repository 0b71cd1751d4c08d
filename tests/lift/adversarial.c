/* Functions that look like operators at small sizes, and some that are.
 *
 * The line above a function is its label: `reject` (no trace may come out, whatever a differential
 * test would say) or `accept` (the trace must come out and equal the function), then why. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define EACH(i, n) for (size_t i = 0; i < (n); i++)

/* ---- a size decides which code runs */
// reject: threshold inside the tested sizes
void size_over_64(const float *x, float *out, size_t n) { EACH(i, n) out[i] = n > 64 ? x[i] + x[i] : x[i]; }
// reject: threshold beyond every tested size
void size_over_100000(const float *x, float *out, size_t n) { float s = n > 100000 ? 3.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: one single size
void size_is_77777(const float *x, float *out, size_t n) { float s = n == 77777 ? 3.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: a window of sizes
void size_between(const float *x, float *out, size_t n) { float s = n > 90 && n < 95 ? 3.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: parity
void size_is_odd(const float *x, float *out, size_t n) { float s = n & 1 ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: remainder
void size_mod_5(const float *x, float *out, size_t n) { float s = n % 5 == 2 ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: only the low byte counts
void size_low_byte(const float *x, float *out, size_t n) { size_t m = n & 255; EACH(i, m) out[i] = x[i]; }
// reject: shifted away at small sizes
void size_high_part(const float *x, float *out, size_t n) { size_t skip = n >> 10; EACH(i, n) out[i] = x[i + skip]; }
// reject: overflow in 32 bits
void size_shifted_out(const float *x, float *out, uint32_t n) { float s = n && !(n << 28) ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: unsigned wrap
void size_wraps(const float *x, float *out, size_t n) { float s = n - 250 < (size_t)1 << 40 ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: capped
void size_capped(const float *x, float *out, size_t n) { size_t m = n < 120 ? n : 120; EACH(i, m) out[i] = x[i]; }
// reject: capped by a second exit
void size_two_exits(const float *x, float *out, size_t n) { for (size_t i = 0; i < n && i < 170; i++) out[i] = x[i]; }
// reject: a fuel counter that runs dry later
void size_fuel(const float *x, float *out, size_t n) { size_t fuel = 500; while (n && fuel) { *out++ = *x++; n--; fuel--; } }
// reject: product of two sizes
void size_product(const float *x, float *out, size_t m, size_t n) { float s = m * n > 6000 ? 2.0f : 1.0f; EACH(i, m) EACH(j, n) out[i * n + j] = s * x[i * n + j]; }
// reject: two sizes equal
void size_square(const float *x, float *out, size_t m, size_t n) { float s = m == n ? 2.0f : 1.0f; EACH(i, m) EACH(j, n) out[i * n + j] = s * x[i * n + j]; }
// reject: both sizes large
void size_both_large(const float *x, float *out, size_t m, size_t n) { float s = m > 30 && n > 30 ? 2.0f : 1.0f; EACH(i, m) EACH(j, n) out[i * n + j] = s * x[i * n + j]; }
// reject: the smaller of two sizes
void size_smaller(const float *x, float *out, size_t m, size_t n) { size_t k = m < n ? m : n; EACH(i, k) out[i] = x[i]; }
// reject: a loop whose length is a logarithm
void size_logarithm(const float *x, float *out, size_t n) { size_t c = 0; for (size_t t = n; t > 64; t >>= 1) c++; EACH(i, n) out[i] = x[i + c]; }

/* ---- an element is treated differently */
// reject: the first
void element_first(const float *x, float *out, size_t n) { EACH(i, n) out[i] = i == 0 ? 0.0f : x[i]; }
// reject: the last
void element_last(const float *x, float *out, size_t n) { EACH(i, n) out[i] = i + 1 == n ? 0.0f : x[i]; }
// reject: one in the middle
void element_skipped(const float *x, float *out, size_t n) { EACH(i, n) { if (i == 21) continue; out[i] = x[i]; } }
// reject: one far away
void element_far(const float *x, float *out, size_t n) { EACH(i, n) { float v = x[i]; if (i >= 3000) v = v + v; out[i] = v; } }
// reject: the first half
void element_half(const float *x, float *out, size_t n) { EACH(i, n) out[i] = i < n / 2 ? x[i] : -x[i]; }
// reject: overwritten afterwards
void element_overwritten(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i]; if (n) out[0] = 0.0f; }
// reject: a second loop over the rest
void element_second_loop(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i]; for (size_t i = 350; i < n; i++) out[i] = 0.0f; }
// reject: a second loop within the tested sizes
void element_second_near(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i]; for (size_t i = 70; i < n; i++) out[i] = 0.0f; }
// reject: a row
void element_row(const float *x, float *out, size_t m, size_t n) { EACH(i, m) { float s = i > 40 ? 2.0f : 1.0f; EACH(j, n) out[i * n + j] = s * x[i * n + j]; } }
// reject: the diagonal
void element_diagonal(const float *x, float *out, size_t n) { EACH(i, n) EACH(j, n) out[i * n + j] = i == j ? 1.0f : x[i * n + j]; }
// reject: above the diagonal only
void element_triangle(const float *x, float *out, size_t n) { EACH(i, n) for (size_t j = i; j < n; j++) out[i * n + j] = x[i * n + j]; }
// reject: the border of a convolution
void element_border(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i] + (i + 1 < n ? x[i + 1] : 0.0f); }
// reject: every second
void element_every_second(const float *x, float *out, size_t n) { for (size_t i = 0; i < n; i += 2) out[i] = x[i]; }

/* ---- an index is affine only at small sizes */
// reject: mask
void index_mask(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i & 15]; }
// reject: a wide mask
void index_wide_mask(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i & 2047]; }
// reject: remainder
void index_remainder(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i % 40]; }
// reject: quotient
void index_quotient(const float *x, const float *w, float *out, size_t n) { EACH(i, n) out[i] = x[i] * w[i / 600]; }
// reject: square
void index_square(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i * i]; }
// reject: triangle numbers
void index_triangle(const float *x, float *out, size_t n) { size_t a = 0; EACH(i, n) { out[i] = x[a]; a += i; } }
// reject: exclusive or
void index_xor(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i ^ 1024]; }
// reject: clamped
void index_clamped(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i < 400 ? i : 400]; }
// reject: an 8-bit counter
void index_byte(const float *x, float *out, size_t n) { uint8_t c = 0; EACH(i, n) out[i] = x[c++]; }
// reject: a 16-bit counter
void index_short(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[(uint16_t)i]; }
// reject: a pointer that jumps every 90 elements
void index_jump(const float *x, float *out, size_t n) { size_t c = 0; EACH(i, n) { out[i] = *x++; if (++c == 90) { c = 0; x += 8; } } }
static const uint32_t order[256] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18};
// reject: a permutation table that begins as the identity
void index_table(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[order[i]]; }
static const float weights[64] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2};
// reject: a table of constants that begins evenly
void index_weights(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i] * weights[i]; }
// reject: addresses from data
void index_gather(const float *x, const int32_t *rows, float *out, size_t n) { EACH(i, n) out[i] = x[rows[i]]; }
// reject: addresses from converted data
void index_from_float(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[(int64_t)x[i]]; }
// reject: stores to addresses from data
void index_scatter(const float *x, const int32_t *rows, float *out, size_t n) { EACH(i, n) out[rows[i]] = x[i]; }

/* ---- state is carried from element to element */
// reject: prefix sum
void state_prefix_sum(const float *x, float *out, size_t n) { float s = 0; EACH(i, n) { s += x[i]; out[i] = s; } }
// reject: running maximum
void state_running_max(const float *x, float *out, size_t n) { float s = -INFINITY; EACH(i, n) { s = x[i] > s ? x[i] : s; out[i] = s; } }
// reject: recursive filter
float state_filter(const float *x, size_t n) { float s = 0; EACH(i, n) s = s * 0.5f + x[i]; return s; }
// reject: each element needs the one before
void state_in_place(float *x, size_t n) { for (size_t i = 1; i < n; i++) x[i] = x[i] + x[i - 1]; }
// reject: fifty elements before
void state_lag_50(const float *x, float *out, size_t n) { EACH(i, n) out[i + 50] = out[i] + x[i]; }
// reject: a delay line in registers
void state_delay(const float *x, float *out, size_t n) { float a = 0, b = 0, c = 0, d = 0; EACH(i, n) { out[i] = d; d = c; c = b; b = a; a = x[i]; } }
// reject: a delay line on the stack
void state_delay_20(const float *x, float *out, size_t n) { float q[20] = {0}; EACH(i, n) { out[i] = q[19]; for (int k = 19; k > 0; k--) q[k] = q[k - 1]; q[0] = x[i]; } }
// reject: a ring buffer
void state_ring(const float *x, float *out, size_t n) { float q[16] = {0}; EACH(i, n) { out[i] = q[i & 15]; q[i & 15] = x[i]; } }
// reject: two buffers change places
void state_swap(float *x, float *y, size_t n) { EACH(i, n) { x[i] = y[i] + 1.0f; float *t = x; x = y; y = t; } }
// reject: a float that counts
void state_float_counter(const float *x, float *out, size_t n) { float c = 0; EACH(i, n) { out[i] = x[i] + c; c += 1.0f; } }
static float total;
// reject: a global
void state_global(const float *x, float *out, size_t n) { EACH(i, n) { total += x[i]; out[i] = x[i]; } }

/* ---- reductions that are not */
// reject: one term is left out
float sum_without_7(const float *x, size_t n) { float s = 0; EACH(i, n) if (i != 7) s += x[i]; return s; }
// reject: reset on the way
float sum_with_reset(const float *x, size_t n) { float s = 0; EACH(i, n) { s += x[i]; if (i == 199) s = 0; } return s; }
// reject: every second term
float sum_of_even(const float *x, size_t n) { float s = 0; for (size_t i = 0; i < n; i += 2) s += x[i]; return s; }
// reject: compensated
float sum_compensated(const float *x, size_t n) { float s = 0, c = 0; EACH(i, n) { float y = x[i] - c, t = s + y; c = (t - s) - y; s = t; } return s; }
// reject: two accumulators
float sum_of_two(const float *x, size_t n) { float s = 0, t = 0; size_t i = 0; for (; i + 1 < n; i += 2) { s += x[i]; t += x[i + 1]; } if (i < n) s += x[i]; return s + t; }
// reject: up to the row number
void sum_causal(const float *x, float *out, size_t n) { EACH(i, n) { float s = 0; for (size_t j = 0; j <= i; j++) s += x[i * n + j]; out[i] = s; } }
// reject: stops at a negative term
float sum_until_negative(const float *x, size_t n) { float s = 0; EACH(i, n) { if (x[i] < 0) break; s += x[i]; } return s; }
// reject: product capped at k = 60
void sum_capped(const float *a, const float *b, float *c, size_t m, size_t n, size_t k) { EACH(i, m) EACH(j, n) { float s = 0; size_t e = k > 60 ? 60 : k; EACH(p, e) s += a[i * k + p] * b[p * n + j]; c[i * n + j] = s; } }
// reject: the number of terms is not n
float sum_mean_capped(const float *x, size_t n) { float s = 0; EACH(i, n) s += x[i]; return s / (float)(int64_t)(n < 200 ? n : 200); }

/* ---- data decide what is written or returned */
// reject: a position, while xmm0 still holds the maximum
int64_t data_argmax(const float *x, size_t n) { int64_t b = 0; float m = x[0]; EACH(i, n) if (x[i] > m) { m = x[i]; b = (int64_t)i; } return b; }
// reject: a position as a float
float data_argmax_float(const float *x, size_t n) { int64_t b = 0; float m = x[0]; EACH(i, n) if (x[i] > m) { m = x[i]; b = (int64_t)i; } return (float)b; }
// accept: a count
int64_t data_count(const float *x, size_t n) { int64_t c = 0; EACH(i, n) c += x[i] > 0; return c; }
// reject: written for some data only
void data_store(const float *x, float *out, size_t n) { EACH(i, n) if (x[i] > 0) out[i] = x[i]; }
// reject: written where there is room
void data_compact(const float *x, float *out, size_t n) { size_t k = 0; EACH(i, n) if (x[i] > 0) out[k++] = x[i]; }
// accept: the bits of a float as a number
void data_bits(const float *x, float *out, size_t n) { EACH(i, n) { union { float f; uint32_t u; } t = {x[i]}; t.u += t.u >> 3; out[i] = t.f; } }
// reject: a counter as the bits of a float
void data_from_counter(const float *x, float *out, size_t n) { EACH(i, n) { union { uint32_t u; float f; } t = {0x3f800000u + (uint32_t)i}; out[i] = x[i] * t.f; } }

/* ---- addresses, calls and declarations */
// reject: alignment of a pointer
void address_aligned(const float *x, float *out, size_t n) { float s = (uintptr_t)x & 63 ? 1.0f : 2.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: overlap of two pointers
void address_overlap(const float *x, float *out, size_t n) { float s = x == out ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: a null pointer means something else
void address_null(const float *x, const float *b, float *out, size_t n) { EACH(i, n) out[i] = b ? x[i] + b[i] : x[i]; }
// reject: writes to its input
void address_const(const float *x, float *out, size_t n) { EACH(i, n) { out[i] = x[i]; ((float *)x)[i] = 0.0f; } }
__attribute__((noinline)) static float local(float v) { return v * v + 1.0f; }
// accept: calls a function of its own
void call_local(const float *x, float *out, size_t n) { EACH(i, n) out[i] = local(x[i]); }
// reject: calls through a pointer
void call_pointer(const float *x, float *out, size_t n, size_t f) { EACH(i, n) out[i] = ((float (*)(float))f)(x[i]); }
// accept: calls a function that has no trace operation
void call_sine(const float *x, float *out, size_t n) { EACH(i, n) out[i] = sinf(x[i]); }
// accept: double precision
void double_sum(const float *x, float *out, size_t n) { EACH(i, n) out[i] = (float)((double)x[i] + 0.1); }

/* ---- these are operators */
// accept: mish
void ok_mish(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i] * tanhf(logf(1.0f + expf(x[i]))); }
// accept: a branch on data
void ok_leaky(const float *x, float *out, size_t n) { EACH(i, n) { float v = x[i]; if (v < 0) v = v * 0.01f; out[i] = v; } }
// accept: two branches on data
void ok_clamp(const float *x, float *out, size_t n) { EACH(i, n) { float v = x[i]; out[i] = v > 3.0f ? 3.0f : v < -3.0f ? -3.0f : v; } }
// accept: fmaxf and fminf
void ok_fclamp(const float *x, float *out, size_t n) { EACH(i, n) out[i] = fminf(fmaxf(x[i], -1.0f), 1.0f); }
// accept: magnitude and sign
void ok_absolute(const float *x, float *out, size_t n) { EACH(i, n) out[i] = fabsf(x[i]) - -x[i]; }
// accept: square root with its errno branch
void ok_root(const float *x, float *out, size_t n) { EACH(i, n) out[i] = sqrtf(x[i]); }
// accept: counts down with signed integers
void ok_down(const float *x, float *out, int n) { for (int i = n - 1; i >= 0; i--) out[i] = x[i] + 1.0f; }
// accept: backwards
void ok_reverse(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[n - 1 - i]; }
// accept: walks pointers
void ok_pointers(const float *x, float *out, size_t n) { const float *end = x + n; while (x != end) *out++ = *x++ * 2.0f; }
// accept: 32-bit dimensions
void ok_matrix_int(const float *a, const float *b, float *c, int m, int n, int k) { for (int i = 0; i < m; i++) for (int j = 0; j < n; j++) { float s = 0; for (int p = 0; p < k; p++) s += a[i * k + p] * b[p * n + j]; c[i * n + j] = s; } }
// accept: a leading dimension of its own
void ok_leading(const float *a, const float *x, float *y, size_t m, size_t k, size_t lda) { EACH(i, m) { float s = 0; EACH(p, k) s += a[i * lda + p] * x[p]; y[i] = s; } }
// accept: transposed
void ok_transpose(const float *x, float *out, size_t m, size_t n) { EACH(i, m) EACH(j, n) out[j * m + i] = x[i * n + j]; }
// accept: a row added to each row
void ok_rows(const float *x, const float *b, float *out, size_t m, size_t n) { EACH(i, m) EACH(j, n) out[i * n + j] = x[i * n + j] + b[j]; }
// accept: one loop over a product of sizes
void ok_flat(const float *x, float *out, size_t m, size_t n) { size_t t = m * n; EACH(i, t) out[i] = x[i] * 0.5f; }
// accept: the counter as a value
void ok_counter(const float *x, float *out, int n) { for (int i = 0; i < n; i++) out[i] = x[i] * (float)(2 * i + 1); }
// accept: a maximum that starts from the first element
void ok_row_max(const float *x, float *out, size_t m, size_t n) { EACH(i, m) { float s = x[i * n]; for (size_t j = 1; j < n; j++) s = x[i * n + j] > s ? x[i * n + j] : s; out[i] = s; } }
// accept: in place, each element for itself
void ok_in_place(float *x, size_t n) { EACH(i, n) x[i] = x[i] * x[i]; }
// accept: a sum with an epilogue
float ok_norm(const float *x, size_t n) { float s = 0; EACH(i, n) s += x[i] * x[i]; return sqrtf(s) * 2.0f; }
// accept: a valid convolution
void ok_window(const float *x, const float *w, float *out, size_t n, size_t k) { EACH(i, n) { float s = 0; EACH(j, k) s += x[i + j] * w[j]; out[i] = s; } }
// accept: two outputs
void ok_two(const float *x, float *a, float *b, size_t n) { EACH(i, n) { a[i] = x[i] + 1.0f; b[i] = x[i] - 1.0f; } }
// accept: a choice between sizes that both do the same
void ok_dispatch(const float *x, float *out, size_t n) { if (n > 32) { const float *e = x + n; while (x < e) *out++ = *x++ * 2.0f; } else EACH(i, n) out[i] = x[i] * 2.0f; }
// accept: softmax in place
void ok_softmax(float *x, size_t n) { float m = x[0]; for (size_t i = 1; i < n; i++) m = x[i] > m ? x[i] : m; float s = 0; EACH(i, n) { x[i] = expf(x[i] - m); s += x[i]; } EACH(i, n) x[i] = x[i] / s; }
