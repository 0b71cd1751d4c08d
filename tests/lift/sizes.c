/* Thresholds, exceptions, indices, loops, state and widths again, from another hand; labels as in
 * holes.c. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#define EACH(i, n) for (size_t i = 0; i < (n); i++)

/* ---- conditions on sizes */
// reject: reads one further inside a window of sizes
void window_shift(const float *x, float *out, size_t n) { size_t w = (size_t)(n > 11) - (size_t)(n > 22); EACH(i, n) out[i] = x[i + w]; }
// reject: zeros inside a window of sizes
void window_zeros(const float *x, float *out, size_t n) { int a = 0; if (n > 25) a++; if (n > 35) a--; if (a) EACH(i, n) out[i] = 0.0f; else EACH(i, n) out[i] = x[i]; }
// reject: two loops, chosen by parity
void parity_loops(const float *x, float *out, size_t n) { if (n % 2) EACH(i, n) out[i] = -x[i]; else EACH(i, n) out[i] = x[i]; }
// accept: two loops that do the same by other means
void same_loops(const float *x, float *out, size_t n) { if (n > 48) EACH(i, n) out[i] = x[i] * x[i]; else { const float *end = x + n; while (x < end) { *out++ = x[0] * x[0]; x++; } } }
// reject: wraps around in 32 bits
void wrapped_word(const float *x, float *out, uint32_t n) { float s = n - 800u < 0xE0000000u ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: the other size and 140
void apart_140(const float *x, float *out, size_t m, size_t n) { float s = m == n + 140 ? 2.0f : 1.0f; EACH(i, m) EACH(j, n) out[i * n + j] = s * x[i * n + j]; }
// reject: a weighted sum of sizes
void weighted(const float *x, float *out, size_t m, size_t n) { float s = 2 * m + 5 * n > 900 ? 2.0f : 1.0f; EACH(i, m) EACH(j, n) out[i * n + j] = s * x[i * n + j]; }
// reject: odd sizes of one remainder above 130
void odd_above(const float *x, float *out, size_t n) { float s = 1; if (n % 2 == 1) if (n > 130 && n % 16 == 5) s = 2; EACH(i, n) out[i] = s * x[i]; }
// reject: one quotient
void one_quotient(const float *x, float *out, size_t n) { float s = n >> 2 == 50 ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: fuel that is a product
void fuel_product(const float *x, float *out, size_t n) { size_t fuel = 700; while (n * fuel) { *out++ = *x++ + 1.0f; n--; fuel--; } }
// reject: the distance of two arrays
void distance(const float *x, float *out, size_t n) { float s = (uintptr_t)out - (uintptr_t)x > 2000 ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: an end pointer that is capped
void capped_end(const float *x, float *out, size_t n) { const float *end = x + (n < 180 ? n : 180); while (x < end) *out++ = *x++ * 2.0f; }
// either: a threshold in floats is in the formula
void float_size_threshold(const float *x, float *out, int n) { float s = (float)n > 4000.0f ? 2.0f : 1.0f; EACH(i, (size_t)n) out[i] = s * x[i]; }

/* ---- exceptions for some elements */
// reject: the first eight
void first_eight(const float *x, float *out, size_t n) { EACH(i, n) out[i] = i < 8 ? -x[i] : x[i]; }
// reject: 25 before the end
void before_end(const float *x, float *out, size_t n) { EACH(i, n) out[i] = i + 25 == n ? 0.0f : x[i]; }
// reject: from a square on
void from_square(const float *x, float *out, size_t n) { EACH(i, n) out[i] = i * i > 6000 ? 0.0f : x[i]; }
// reject: all but the last
void all_but_last(const float *x, float *out, size_t n) { for (size_t i = 0; i + 1 < n; i++) out[i] = x[i] + 2.0f; }
// reject: below an antidiagonal
void antidiagonal(const float *x, float *out, size_t m, size_t n) { EACH(i, m) EACH(j, n) out[i * n + j] = i + j > 80 ? 0.0f : x[i * n + j]; }
// reject: one position of the flat array
void one_position(const float *x, float *out, size_t m, size_t n) { EACH(i, m) EACH(j, n) { size_t t = i * n + j; out[t] = t == 555 ? 0.0f : x[t]; } }
// reject: the pointer skips one element, 110 before the end
void one_skipped(const float *x, float *out, size_t n) { const float *p = x; size_t c = 0; EACH(i, n) { out[i] = *p++; if (++c == n - 110) p++; } }
// accept: data compared with the counter
void equal_counter(const int32_t *x, float *out, size_t n) { EACH(i, n) out[i] = x[i] == (int)i ? 1.0f : 0.0f; }
// either: the counter compared in floats is in the formula
void float_counter_threshold(const float *x, float *out, int n) { EACH(i, (size_t)n) out[i] = (float)(int)i > 400.0f ? 0.0f : x[i]; }
// reject: a float that counts, compared
void float_counts(const float *x, float *out, size_t n) { float c = 0; EACH(i, n) { out[i] = c > 450.0f ? 0.0f : x[i]; c += 1.0f; } }
// reject: the border of three taps
void taps_border(const float *x, float *out, size_t n) { EACH(i, n) { float s = 0; for (int d = -1; d <= 1; d++) { long q = (long)i + d; if (q >= 0 && q < (long)n) s += x[q]; } out[i] = s; } }
// either: the inner points of three taps
void taps_inner(const float *x, float *out, size_t n) { for (size_t i = 1; i + 1 < n; i++) out[i] = x[i - 1] + x[i + 1]; }

/* ---- indices */
// reject: one weight for 512 elements
void weight_512(const float *x, const float *w, float *out, size_t n) { EACH(i, n) out[i] = x[i] * w[i >> 9]; }
// reject: clamped at six
void clamped_6(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i < 6 ? i : 6]; }
// reject: differences of the fourth order
void differences(const float *x, float *out, size_t n) { size_t a = 0, b = 0, c = 0, d = 0; EACH(i, n) { out[i] = x[i + a]; a += b; b += c; c += d; d += 2; } }
// reject: a mask of signs
void sign_mask(const float *x, float *out, size_t n) { EACH(i, n) { int64_t t = ((int64_t)i - 650) >> 63; out[i] = x[i & t]; } }
// reject: Gray code of all but the last bit
void gray_code(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[((i ^ i >> 1) & ~(size_t)1) | (i & 1)]; }
// either: a shift that leaves nothing
void shifted_away(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i] + x[i << 62]; }
// reject: two counters, one starts again
void second_order(const float *x, float *out, size_t n) { size_t a = 0, b = 1; EACH(i, n) { out[i] = x[a]; size_t t = a; a = b; b = 2 * b - t; if (a >> 10) a = 0; } }
// reject: a local permutation
void local_order(const float *x, float *out, size_t n) { int p[80]; for (int k = 0; k < 80; k++) p[k] = k; p[60] = 0; EACH(i, n) out[i] = x[p[i]]; }
// accept: every second element is read
void read_second(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[2 * i]; }
// accept: every third element is written
void write_third(const float *x, float *out, size_t n) { EACH(i, n) out[3 * i] = x[i]; }
// accept: neighbours to the right
void neighbours(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i + 3] - x[i + 1]; }
// accept: a second counter steps by three
void counter_of_three(const float *x, float *out, size_t n) { size_t a = 0; EACH(i, n) { out[i] = x[a]; a += 3; } }
// accept: row pointers
void row_pointers(const float *x, float *out, size_t m, size_t n) { EACH(i, m) { const float *a = x + i * n, *end = a + n; float *b = out + i * n; while (a != end) *b++ = *a++ * 3.0f; } }

/* ---- loops */
// reject: four at a time and no tail
void no_tail(const float *x, float *out, size_t n) { for (size_t i = 0; i + 4 <= n; i += 4) { out[i] = x[i]; out[i + 1] = x[i + 1]; out[i + 2] = x[i + 2]; out[i + 3] = x[i + 3]; } }
// reject: blocks that look at their first element
void block_first(const float *x, float *out, size_t n) { for (size_t b = 0; b < n; b += 48) { size_t e = b + 48 < n ? b + 48 : n; for (size_t i = b; i < e; i++) out[i] = x[i] + x[b]; } }
// either: blocks
void block_plain(const float *x, float *out, size_t n) { for (size_t b = 0; b < n; b += 48) { size_t e = b + 48 < n ? b + 48 : n; for (size_t i = b; i < e; i++) out[i] = x[i] * 2.0f; } }
// accept: the first element before the loop
void peeled(const float *x, float *out, size_t n) { if (n == 0) return; out[0] = x[0] * 3.0f; for (size_t i = 1; i < n; i++) out[i] = x[i] * 3.0f; }
// reject: the first element after the loop, by another formula
void peeled_wrong(const float *x, float *out, size_t n) { if (n == 0) return; for (size_t i = 1; i < n; i++) out[i] = x[i] * 3.0f; out[0] = x[0]; }
// accept: a loop that tests at its end
void tested_late(const float *x, float *out, size_t n) { if (n == 0) return; size_t i = 0; do { out[i] = x[i] * 3.0f; } while (++i < n); }
// accept: nothing for sizes that are not positive
void not_positive(const float *x, float *out, int n) { if (n <= 0) return; for (int i = 0; i < n; i++) out[i] = x[i] * 3.0f; }
// either: two loops of two lengths into one array
void two_lengths(const float *x, float *out, size_t m, size_t n) { EACH(i, m) out[i] = x[i]; EACH(j, n) out[m + j] = x[j] * 2.0f; }
// reject: the upper half of a product
void product_upper(const float *a, const float *b, float *c, size_t m, size_t n, size_t k) { EACH(i, m) for (size_t j = i; j < n; j++) { float s = 0; EACH(p, k) s += a[i * k + p] * b[p * n + j]; c[i * n + j] = s; } }
// accept: rows with a distance of their own
void product_rows(const float *a, const float *b, float *c, size_t m, size_t n, size_t k, size_t lda) { EACH(i, m) EACH(j, n) { float s = 0; EACH(p, k) s += a[i * lda + p] * b[p * n + j]; c[i * n + j] = s; } }
// reject: starts again after 70 terms
void product_again(const float *a, const float *b, float *c, size_t m, size_t n, size_t k) { EACH(i, m) EACH(j, n) { float s = 0; EACH(p, k) { s += a[i * k + p] * b[p * n + j]; if (p == 69) s = 0; } c[i * n + j] = s; } }
// accept: the second factor transposed
void product_transposed(const float *a, const float *b, float *c, size_t m, size_t n, size_t k) { EACH(i, m) EACH(j, n) { float s = 0; EACH(p, k) s += a[i * k + p] * b[j * k + p]; c[i * n + j] = s; } }
// accept: pointers that walk across rows
void vector_pointers(const float *a, const float *x, float *y, size_t m, size_t k) { EACH(i, m) { float s = 0; const float *q = x; EACH(p, k) s += *a++ * *q++; y[i] = s; } }
// accept: sums of rows
void row_sums(const float *x, float *out, size_t m, size_t n) { EACH(i, m) { float s = 0; EACH(j, n) s += x[i * n + j]; out[i] = s; } }
// accept: two at a time and the last
void two_and_last(const float *x, float *out, size_t n) { size_t i = 0; for (; i + 2 <= n; i += 2) { out[i] = x[i] * x[i]; out[i + 1] = x[i + 1] * x[i + 1]; } if (i < n) out[i] = x[i] * x[i]; }
// accept: root mean squares of rows
void rows_rms(const float *x, const float *w, float *out, size_t m, size_t n, float eps) { EACH(i, m) { const float *r = x + i * n; float s = 0; EACH(j, n) s += r[j] * r[j]; float k = 1.0f / sqrtf(s / (float)n + eps); EACH(j, n) out[i * n + j] = r[j] * k * w[j]; } }
// accept: softmax of rows
void rows_softmax(const float *x, float *out, size_t m, size_t n) { EACH(i, m) { const float *r = x + i * n; float top = r[0]; for (size_t j = 1; j < n; j++) if (r[j] > top) top = r[j]; float s = 0; EACH(j, n) { float e = expf(r[j] - top); out[i * n + j] = e; s += e; } EACH(j, n) out[i * n + j] /= s; } }

/* ---- reductions */
// reject: one term far away is left out
float without_1500(const float *x, size_t n) { float s = 0; EACH(i, n) if (i != 1500) s += x[i]; return s; }
// reject: three terms whatever n is
float mean_of_three(const float *x, size_t n) { return (x[0] + x[1] + x[2]) / 3.0f; }
// reject: six terms whatever n is
float sum_of_six(const float *x, size_t n) { float s = 0; EACH(i, 6) s += x[i]; return s; }
// either: from the second term on
float sum_from_second(const float *x, size_t n) { float s = 0; for (size_t i = 1; i < n; i++) s += x[i]; return s; }
// reject: halved every 600 terms
float sum_halved(const float *x, size_t n) { float s = 0; size_t c = 0; EACH(i, n) { s += x[i]; if (++c >= 600) { c = 0; s *= 0.5f; } } return s; }
// reject: the maximum and where it is
void maximum_place(const float *x, float *out, size_t n) { size_t b = 0; float m = x[0]; for (size_t i = 1; i < n; i++) if (x[i] > m) { m = x[i]; b = i; } out[0] = m; out[1] = (float)b; }
// reject: where the first negative is
int64_t first_negative(const float *x, size_t n) { EACH(i, n) if (x[i] < 0) return (int64_t)i; return (int64_t)n; }
// reject: a quotient of the final counter
float plus_quotient(const float *x, size_t n) { size_t i = 0; float s = 0; for (; i < n; i++) s += x[i]; return s + (float)(i >> 7); }
// accept: from the end of the sizes
float sum_down(const float *x, size_t n) { float s = 0; while (n--) s += *x++; return s; }
// accept: a mean
float mean(const float *x, size_t n) { float s = 0; EACH(i, n) s += x[i]; return s / (float)n; }

/* ---- state */
// either: each element needs the next
void next_in_place(float *x, size_t n) { EACH(i, n) x[i] = x[i] * 2.0f + x[i + 1]; }
// reject: each element needs the one 35 before
void lag_35(float *x, size_t n) { for (size_t i = 35; i < n; i++) x[i] = x[i] + x[i - 35]; }
// reject: writes two, reads what was written 30 rounds before
void lag_pairs(const float *x, float *out, size_t n) { EACH(i, n) { out[2 * i + 50] = x[i]; out[2 * i + 1] = out[i]; } }
// reject: forty elements late
void late_40(const float *x, float *out, size_t n) { float q[40] = {0}; EACH(i, n) { out[i] = q[39] + 1.0f; for (int k = 39; k > 0; k--) q[k] = q[k - 1]; q[0] = x[i]; } }

/* ---- counters and sizes as numbers */
// accept: the counter
void add_counter(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i] + (float)i; }
// accept: a size
void times_size(const float *x, float *out, int n) { for (int i = 0; i < n; i++) out[i] = x[i] * (float)n; }
// accept: the square of a size as a float
void times_square(const float *x, float *out, int n) { for (int i = 0; i < n; i++) out[i] = x[i] * ((float)n * (float)n); }
// either: the square of a size as an integer
void times_whole_square(const float *x, float *out, int n) { for (int i = 0; i < n; i++) out[i] = x[i] * (float)(n * n); }
// reject: the square of the counter as an integer
void counter_square(const float *x, float *out, int n) { for (int i = 0; i < n; i++) out[i] = x[i] * (float)(i * i); }
// either: the square of the counter as a float
void counter_square_float(const float *x, float *out, int n) { for (int i = 0; i < n; i++) out[i] = x[i] * ((float)i * (float)i); }
// reject: a quotient of the counter
void counter_quotient(const float *x, float *out, int n) { for (int i = 0; i < n; i++) out[i] = x[i] + (float)(i / 500); }
// reject: a quotient of a size
void size_quotient(const float *x, float *out, int n) { for (int i = 0; i < n; i++) out[i] = x[i] + (float)(n >> 9); }
// reject: signs by parity
void counter_parity(const float *x, float *out, int n) { for (int i = 0; i < n; i++) out[i] = x[i] * (float)(1 - 2 * (i & 1)); }
// either: powers of two
void counter_power(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i] * (float)(1u << (i & 31)); }
// reject: a product that wraps around in 32 bits
void counter_wraps(const float *x, float *out, uint32_t n) { for (uint32_t i = 0; i < n; i++) out[i] = x[i] + (float)(int64_t)(uint32_t)(i * 90000u); }
// accept: the counter through 32 bits
void counter_cast(const float *x, float *out, int n) { for (int64_t i = 0; i < n; i++) out[i] = x[i] * (float)(int)i; }

/* ---- sizes that are 0, and remainders of the others */
#define ROWS EACH(i, m) { float s = 0; EACH(j, n) s += x[i * n + j]; out[i] = s; }
// either: rows without elements, four at a time (gcc -O1 has n as a name for 0)
void empty_rows(const float *x, float *out, size_t m, size_t n) { size_t i = 0; if (n) ROWS else { for (; i + 4 <= m; i += 4) out[i] = out[i + 1] = out[i + 2] = out[i + 3] = 0; for (; i < m; i++) out[i] = 0; } }
// reject: of rows without elements the rest is 1
void empty_rest(const float *x, float *out, size_t m, size_t n) { size_t i = 0; if (n) ROWS else { for (; i + 4 <= m; i += 4) out[i] = out[i + 1] = out[i + 2] = out[i + 3] = 0; for (; i < m; i++) out[i] = 1; } }
// reject: rows without elements where the fifth of eight is 1
void empty_class(const float *x, float *out, size_t m, size_t n) { float z = m % 8 == 5 ? 1.0f : 0.0f; if (n) ROWS else EACH(i, m) out[i] = z; }
// reject: rows without elements from 137 on
void empty_far(const float *x, float *out, size_t m, size_t n) { float z = m % 8 == 5 && m > 137 ? 1.0f : 0.0f; if (n) ROWS else EACH(i, m) out[i] = z; }
// reject: the remainder of one size where the other has one
void rest_of_both(const float *x, float *out, size_t m, size_t n) { float z = n % 4 == 3 && m % 4 == 2 ? 1.0f : 0.0f; EACH(i, m) EACH(j, n) out[i * n + j] = x[i * n + j] + z; }
// reject: a remainder with rows beyond any state
void rest_of_far(const float *x, float *out, size_t m, size_t n) { float z = n % 4 == 3 && m > 90 ? 1.0f : 0.0f; EACH(i, m) EACH(j, n) out[i * n + j] = x[i * n + j] + z; }
// reject: the row before, in sizes of one remainder
void rest_with_state(const float *x, float *out, size_t m, size_t n) { float a = x[0], b = a, c = a, d = a; EACH(i, m) { EACH(j, n) out[i * n + j] = x[i * n + j] + (n % 4 == 3 ? a : x[0]); a = b; b = c; c = d; d = x[i * n]; } }

/* ---- state that arrives late: constants at first, then elements of before */
// reject: eight elements before, through the stack
void late_slots(const float *x, float *out, size_t n) { volatile float a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0; EACH(i, n) { out[i] = a; a = b; b = c; c = d; d = e; e = f; f = g; g = h; h = x[i]; } }
// reject: eight rows before, through the stack
void late_rows(const float *x, float *out, size_t m, size_t n) { volatile float a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0; EACH(i, m) { EACH(j, n) out[i * n + j] = x[i * n + j] + a; a = b; b = c; c = d; d = e; e = f; f = g; g = h; h = x[i * n]; } }
// reject: eight elements before, through integer registers
void late_words(const int32_t *x, int32_t *out, size_t n) { int32_t a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0; EACH(i, n) { out[i] = x[i] + a; a = b; b = c; c = d; d = e; e = f; f = g; g = h; h = x[i]; } }
// reject: eight rows before, through integer registers and the stack
void late_word_rows(const int32_t *x, int32_t *out, size_t m, size_t n) { volatile int32_t a = 0, b = 0, c = 0, d = 0; int32_t e = 0, f = 0, g = 0, h = 0; EACH(i, m) { EACH(j, n) out[i * n + j] = x[i * n + j] + a; a = b; b = c; c = d; d = e; e = f; f = g; g = h; h = x[i * n]; } }
