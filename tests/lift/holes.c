/* One function for every way that was thought of to pass a check by luck; labels as in adversarial.c,
 * and `either` where both a right trace and a refusal will do. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#define EACH(i, n) for (size_t i = 0; i < (n); i++)
#define SCALED for (size_t i = 0; i < m * n; i++) out[i] = s * x[i]

/* ---- sizes that meet in a corner */
// reject: two sizes far apart, and one of them large
void corner_apart(const float *x, float *out, size_t m, size_t n) { float s = m > n + 20 && n > 15 ? 2.0f : 1.0f; SCALED; }
// reject: a product, and both factors within bounds
void corner_product(const float *x, float *out, size_t m, size_t n) { float s = m * n > 1000 && n < 40 && m > 30 ? 2.0f : 1.0f; SCALED; }
// reject: a square number
void corner_square(const float *x, float *out, size_t n) { float s = n * n == 144 ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: three sizes in a line
void corner_line(const float *x, float *out, size_t m, size_t n) { float s = m + n == 36 && m > 12 && n > 18 ? 2.0f : 1.0f; SCALED; }
// either: a fourth power that wraps around at 65536, beyond the extent limit
void corner_power(const float *x, float *out, size_t n) { float s = n * n * n * n == 0 && n ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: a difference whose sign is read where it overflows
void corner_sign(const float *x, float *out, uint32_t n) { float s = (int32_t)(n - 0x80000100u) < 0 ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: only where one size is 17 more than twice the other
void corner_double(const float *x, float *out, size_t m, size_t n) { float s = m == 2 * n + 17 && n == 9 ? 2.0f : 1.0f; SCALED; }
// reject: rows counted only beyond a number of columns
void corner_rows(const float *x, float *out, size_t m, size_t n) { size_t e = n > 60 && m > 3 ? m - 1 : m; EACH(i, e) EACH(j, n) out[i * n + j] = x[i * n + j]; }

/* ---- a loop that is as long as it should be, at first */
// reject: eight at most, and 8 is a size that is tried
void length_eight(const float *x, float *out, size_t n) { for (size_t i = 0; i < 8 && i < n; i++) out[i] = x[i] * 2.0f; }
// reject: sixteen at most
float length_sixteen(const float *x, size_t n) { float s = 0; for (size_t i = 0; i < 16 && i < n; i++) s += x[i]; return s; }
// reject: one round less from 1001 on
float length_ratio(const float *x, size_t n) { float s = 0; for (size_t i = 0; 1001 * i < 1000 * n; i++) s += x[i]; return s; }
// reject: the same for elements
void length_ratio_out(const float *x, float *out, size_t n) { for (size_t i = 0; 517 * i < 516 * n; i++) out[i] = x[i]; }
// reject: a polynomial that is n at 0, 1, 2, 5 and 8
float length_polynomial(const float *x, size_t n) { size_t e = n * (n - 1) * (n - 2) * (n - 5) * (n - 8) + n; float s = 0; EACH(i, e) s += x[i]; return s; }
// reject: the smaller of two sizes, the second 30 larger
void length_smaller(const float *x, float *out, size_t m, size_t n) { for (size_t i = 0; i < n && i < m + 30; i++) out[i] = x[i]; }
// reject: stops in the middle of a row
void length_middle(const float *x, float *out, size_t m, size_t n) { EACH(i, m) for (size_t j = 0; j < n && i + j < 90; j++) out[i * n + j] = x[i * n + j]; }
// reject: two counters that meet
void length_meet(const float *x, float *out, size_t n) { size_t a = 0, b = n + 100; while (a < n && a < b) { out[a] = x[a]; a++; b--; } }
// reject: steps that become longer
void length_longer(const float *x, float *out, size_t n) { size_t step = 1, k = 0; for (size_t i = 0; i < n; i += step) { out[i] = x[i]; if (++k == 100) step = 2; } }
// reject: a block of bytes as long as a polynomial
void length_block(float *out, size_t n) { memset(out, 0, 4 * (n * (n - 1) * (n - 2) * (n - 5) * (n - 8) + n)); }
// reject: counts with a byte
void length_byte(const float *x, float *out, size_t n) { for (uint8_t i = 0; i < (uint8_t)n; i++) out[i] = x[i]; }
// reject: rows that end one column early from the thirtieth column on
void length_columns(const float *x, float *out, size_t m, size_t n) { size_t e = n - n / 30; EACH(i, m) EACH(j, e) out[i * n + j] = x[i * n + j]; }
// reject: a tail whose last element is another one
void length_tail(const float *x, float *out, size_t n) { size_t i = 0; for (; i + 4 <= n; i += 4) { out[i] = x[i]; out[i + 1] = x[i + 1]; out[i + 2] = x[i + 2]; out[i + 3] = x[i + 3]; } for (; i < n; i++) out[i] = x[n - 1]; }
// reject: eight at a time, the seventh of the third group is another
void length_group(const float *x, float *out, size_t n) { size_t i = 0, g = 0; for (; i + 8 <= n; i += 8, g++) for (size_t k = 0; k < 8; k++) out[i + k] = g == 2 && k == 6 ? 0.0f : x[i + k]; for (; i < n; i++) out[i] = x[i]; }

/* ---- state that is not seen at once */
// reject: a delay line of integers in registers
void hidden_integers(const float *x, float *out, size_t n) { size_t a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0; EACH(i, n) { out[i] = x[h]; h = g; g = f; f = e; e = d; d = c; c = b; b = a; a = i; } }
// reject: a delay line behind a condition on the other size
void hidden_cell(const float *x, float *out, size_t m, size_t n) { EACH(i, m) { float q[30] = {0}; EACH(j, n) { if (m > 4) { out[i * n + j] = q[29]; memmove(q + 1, q, 29 * sizeof *q); q[0] = x[i * n + j]; } else out[i * n + j] = 0.0f; } } }
// reject: doubles in integer registers
void hidden_doubles(const double *x, double *out, size_t n) { double a = 0, b = 0, c = 0, d = 0, e = 0, f = 0; EACH(i, n) { out[i] = f; f = e; e = d; d = c; c = b; b = a; a = x[i]; } }
// reject: a distance in memory that is a size times 300
void hidden_distance(float *x, size_t m, size_t n) { EACH(i, n) x[i + 300 * m] = x[i] * 2.0f; }
// reject: a distance of seventy rows
void hidden_rows(float *x, size_t m, size_t n) { EACH(i, m) EACH(j, n) x[(i + 70) * n + j] = x[i * n + j] + 1.0f; }
static float memory[64];
// reject: a ring buffer in static memory
void hidden_static(const float *x, float *out, size_t n) { EACH(i, n) { out[i] = memory[i & 63]; memory[i & 63] = x[i]; } }
// reject: a counter in static memory
float hidden_calls(const float *x, size_t n) { static int calls; float s = 0; EACH(i, n) s += x[i]; return ++calls > 1000 ? 0.0f : s; }
// reject: a flag that is set in the first round
void hidden_flag(const float *x, float *out, size_t n) { int seen = 0; EACH(i, n) { out[i] = seen ? x[i] : -x[i]; seen = 1; } }
// reject: a sign that changes each round
void hidden_sign(const float *x, float *out, size_t n) { float s = 1.0f; EACH(i, n) { out[i] = s * x[i]; s = -s; } }
// reject: a linear congruence
void hidden_random(const float *x, float *out, size_t n) { uint32_t r = 1; EACH(i, n) { r = r * 1664525u + 1013904223u; out[i] = x[i] * (float)(r >> 31); } }
// reject: the row before
void hidden_before(const float *x, float *out, size_t m, size_t n) { EACH(i, m) EACH(j, n) out[i * n + j] = i ? out[(i - 1) * n + j] + x[i * n + j] : x[i * n + j]; }
// reject: the maximum so far of each row, one row late
void hidden_late(const float *x, float *out, size_t m, size_t n) { float late = 0; EACH(i, m) { out[i] = late; float s = x[i * n]; EACH(j, n) s = x[i * n + j] > s ? x[i * n + j] : s; late = s; } }

/* ---- parts of registers, signs and widths */
// accept: the sign of an unsigned byte
void part_byte_sign(const float *x, const uint8_t *k, float *out, size_t n) { EACH(i, n) out[i] = (int8_t)k[i] > 3 ? x[i] : -x[i]; }
// accept: the low byte of a word, compared
void part_low_byte(const float *x, const int32_t *k, float *out, size_t n) { EACH(i, n) out[i] = (int8_t)k[i] > 3 ? x[i] : (float)k[i]; }
// accept: a signed byte compared as unsigned
void part_unsigned(const float *x, const int8_t *k, float *out, size_t n) { EACH(i, n) out[i] = (uint8_t)k[i] > 200 ? x[i] : -x[i]; }
// reject: the low half of a float is cleared
void part_cleared_half(const float *x, float *out, size_t n) { EACH(i, n) { union { float f; uint16_t h[2]; } t; t.f = x[i]; t.h[0] = 0; out[i] = t.f; } }
// reject: the low half of a double as a float
void part_of_double(const double *x, float *out, size_t n) { EACH(i, n) { union { double d; float f[2]; } t; t.d = x[i]; out[i] = t.f[0]; } }
// reject: a 16-bit product
void part_product(const float *x, float *out, uint32_t n) { EACH(i, n) out[i] = x[i] * (float)(uint16_t)(n * 257u); }
// accept: a shifted byte
void part_shifted(const float *x, const uint8_t *k, float *out, size_t n) { EACH(i, n) out[i] = x[i] * (float)(uint8_t)(k[i] << 1); }
// accept: a sum of bytes in a byte
void part_sum(const uint8_t *x, const uint8_t *y, float *out, size_t n) { EACH(i, n) out[i] = (float)(uint8_t)(x[i] + y[i]); }
// reject: a counter of 24 bits
void part_counter(const float *x, float *out, size_t n) { struct { unsigned c : 24; } t = {0}; EACH(i, n) { out[i] = x[t.c]; t.c++; } }
// either: a product of counter and size in 32 bits as a number, exact within the extent limit
void part_flat(const float *x, float *out, uint32_t m, uint32_t n) { for (uint32_t i = 0; i < m; i++) for (uint32_t j = 0; j < n; j++) out[i * n + j] = x[i * n + j] * (float)(i * n + j); }
// either: four times a counter that runs over a product in 32 bits, exact within the extent limit
void part_four(const float *x, float *out, uint32_t m, uint32_t n) { for (uint32_t i = 0; i < m * n; i++) out[i] = x[4u * i]; }
// reject: the upper half of a product
void part_upper(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[(size_t)(((unsigned __int128)i * 0x4000000000000000u) >> 62)] + x[(i * 0x40000001u) >> 30 & 1]; }
// reject: a rotation
void part_rotated(const float *x, float *out, uint32_t n) { for (uint32_t i = 0; i < n; i++) out[i] = x[(i << 20) | (i >> 12)]; }

// accept: equal to a large byte
void part_equal(const float *x, const uint8_t *k, float *out, size_t n) { EACH(i, n) out[i] = k[i] == 200 ? x[i] : -x[i]; }
// accept: above a large byte
void part_above(const float *x, const uint8_t *k, float *out, size_t n) { EACH(i, n) out[i] = k[i] > 200 ? x[i] : -x[i]; }
// accept: negative bytes
void part_negative(const float *x, const int8_t *k, float *out, size_t n) { EACH(i, n) out[i] = k[i] < -100 ? x[i] : -x[i]; }
// accept: equal to a negative byte
void part_minus(const float *x, const int8_t *k, float *out, size_t n) { EACH(i, n) out[i] = k[i] == -7 ? x[i] : -x[i]; }
// accept: two bytes compared
void part_two(const float *x, const uint8_t *k, const uint8_t *l, float *out, size_t n) { EACH(i, n) out[i] = k[i] > l[i] ? x[i] : -x[i]; }
// either: words, which clang reads as unsigned ones
void part_words(const float *x, const int16_t *k, float *out, size_t n) { EACH(i, n) out[i] = k[i] != 1000 ? x[i] : -x[i]; }
// accept: masks
void part_mask(const float *x, const uint8_t *k, float *out, size_t n) { EACH(i, n) out[i] = k[i] ? x[i] : -INFINITY; }
// accept: int sizes used as 64 bits
void part_int(const float *x, float *out, int m, uint32_t n) { for (int i = 0; i < m; i++) for (uint32_t j = 0; j < n; j++) out[(size_t)i * n + j] = x[(size_t)i * n + j]; }

/* ---- floats: order, rounding, conversions */
// either: the operands of a maximum change places every second element
void float_order(const float *x, const float *y, float *out, size_t n) { EACH(i, n) out[i] = i & 1 ? (x[i] > y[i] ? x[i] : y[i]) : (y[i] > x[i] ? y[i] : x[i]); }
// reject: the maximum of a row prefers NaN in the first half only
float float_nan(const float *x, size_t n) { float s = -INFINITY; size_t i = 0; for (; i < n / 2; i++) s = x[i] > s ? x[i] : s; for (; i < n; i++) s = s > x[i] ? s : x[i]; return s; }
// accept: a float to an integer and back
void float_truncated(const float *x, float *out, size_t n) { EACH(i, n) out[i] = (float)(int8_t)x[i]; }
// reject: an index through a float that loses bits from 2^24 on
void float_index(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[(size_t)(float)i]; }
// reject: an index through a float, wrong from 101 on
void float_index_near(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[(size_t)((float)i * 0.99f + 0.9f)]; }
// reject: a size through a float
void float_size(const float *x, float *out, size_t n) { size_t e = (size_t)((float)n * 1.0f); EACH(i, e) out[i] = x[i]; }
// reject: a float counter ends the loop
void float_counter(const float *x, float *out, size_t n) { float c = 0; size_t i = 0; while (c < (float)n) { out[i] = x[i]; i++; c += 1.0f; } }
// reject: a table by a size
void float_table(const float *x, float *out, size_t n) { static const float t[400] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3}; float s = t[n % 400]; EACH(i, n) out[i] = s * x[i]; }
// reject: a table by a size, without a remainder
void float_table_plain(const float *x, float *out, size_t n) { static const float t[400] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3}; float s = t[n]; EACH(i, n) out[i] = s * x[i]; }
// reject: other rounding
void float_control(const float *x, float *out, size_t n) { unsigned old = __builtin_ia32_stmxcsr(); __builtin_ia32_ldmxcsr(old | 0x8040); EACH(i, n) out[i] = x[i] * 0.5f; __builtin_ia32_ldmxcsr(old); }
// reject: extended precision
void float_extended(const float *x, float *out, size_t n) { EACH(i, n) out[i] = (float)((long double)x[i] * 1.1L); }

/* ---- memory: what is read, written, overlapped and returned */
// reject: writes into the frame of its caller
void memory_frame(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i]; ((volatile float *)__builtin_frame_address(0))[40] = 1.0f; }
// reject: reads a variable that is set for some sizes only
float memory_unset(const float *x, size_t n) { float s[3]; for (size_t i = 0; i < n && i < 2; i++) s[i] = x[i]; return ((volatile float *)s)[1] + ((volatile float *)s)[2]; }
// reject: the output decides an address
void memory_own(float *x, size_t n) { EACH(i, n) x[i] = x[(size_t)x[i]]; }
// reject: two pointers are compared by order
void memory_order(const float *x, float *out, size_t n) { if (out < x) EACH(i, n) out[i] = x[i]; else for (size_t i = n; i-- > 0;) out[i] = x[i]; }
// reject: the distance of two arrays as a number
void memory_far(const float *x, float *out, size_t n) { float s = (float)(out - x); EACH(i, n) out[i] = s; }
// reject: dimensions change places at one size
void memory_swapped(const float *x, float *out, size_t m, size_t n) { size_t ld = n == 37 ? m : n; EACH(i, m) EACH(j, n) out[i * n + j] = x[i * ld + j]; }
// reject: written twice, the second time for the even ones
void memory_twice(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i]; for (size_t i = 0; i < n; i += 2) out[i] = 0.0f; }
// reject: an array of its own by a counter
void memory_local(const float *x, float *out, size_t n) { float t[128]; for (int k = 0; k < 128; k++) t[k] = 1.0f; t[100] = 2.0f; for (size_t i = 0; i < n && i < 128; i++) out[i] = x[i] * t[i]; }
// reject: a copy that is one element too long
void memory_long(const float *x, float *out, size_t n) { EACH(i, n) out[i] = 0.0f; memcpy(out, x, 4 * n); if (n > 9) out[n] = 1.0f; }
// reject: a copy in two blocks, cut at 60
void memory_cut(const float *x, float *out, size_t n) { size_t e = n < 60 ? n : 60; memcpy(out, x, 4 * e); EACH(i, n - e) out[e + i] = -x[e + i]; }
// reject: a call to an unknown function
extern int puts(const char *); void memory_says(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i]; puts("done"); }

/* ---- written after the rules were finished */
// reject: what is written meets what is read at 2001
void meet_read(float *x, float *out, size_t m, size_t n) { EACH(i, m) x[1000 * i + 1] = 0.0f; EACH(j, n) out[j] = x[3 * j]; }
// reject: two writes meet at 703
void meet_write(const float *x, float *out, size_t m, size_t n) { EACH(i, m) out[351 * i + 1] = x[i]; EACH(j, n) out[2 * j] = -x[j]; }
// reject: one loop nest writes an element twice from the 400th column on
void meet_itself(const float *x, float *out, size_t m, size_t n) { EACH(i, m) EACH(j, n) out[400 * i + j] = x[i * n + j]; }
// reject: reads what an earlier loop wrote, where that is long enough
float meet_earlier(const float *x, float *out, size_t m, size_t n) { EACH(i, m) out[i] = x[i]; float s = 0; EACH(j, n) s += out[j + 60]; return s; }
// reject: rows of 64 that become longer than 64
void meet_rows(const float *x, float *out, size_t m, size_t n) { EACH(i, m) EACH(j, n) out[64 * i + j] = x[i * n + j]; }
// reject: a chain of selections makes a cap of 70
void chosen_cap(const float *x, float *out, size_t n) { size_t big = n > 70; size_t e = big * 70 + (1 - big) * n; EACH(i, e) out[i] = x[i]; }
// reject: a loop is left early if the other size is three times as large
void left_early(const float *x, float *out, size_t m, size_t n) { for (size_t i = 0; i < n; i++) { if (m > 3 * n + 10) break; out[i] = x[i]; } }
// reject: a loop is left early in a later row
void left_later(const float *x, float *out, size_t m, size_t n) { EACH(i, m) { if (m - i > 90) continue; EACH(j, n) out[i * n + j] = x[i * n + j]; } }
// reject: two exits that meet between the samples
void two_exits(const float *x, float *out, size_t n) { for (size_t i = 0; i < n && 3 * i < n + 50; i++) out[i] = x[i]; }
// reject: an exit by equality that is jumped over
void jumped_over(const float *x, float *out, size_t n) { for (size_t i = 0; i != n; i += 1) { if (i == 77) i++; out[i] = x[i]; } }
// reject: the scale is a product that only three sizes reach
void three_sizes(const float *x, float *out, size_t m, size_t n, size_t k) { float s = m > 6 && n > 7 && k > 8 && m + n + k == 31 ? 2.0f : 1.0f; for (size_t i = 0; i < m * n * k; i++) out[i] = s * x[i]; }
// reject: differences of squares
void squares(const float *x, float *out, size_t m, size_t n) { float s = m * m > n * n + 5000 ? 2.0f : 1.0f; SCALED; }
// reject: the second loop is as long as the first, up to 40
void second_shorter(const float *x, float *y, float *out, size_t n) { EACH(i, n) y[i] = x[i]; size_t e = n < 40 ? n : 40; EACH(i, e) out[i] = y[i] + 1.0f; }
// reject: a bit of a size
void size_bit(const float *x, float *out, size_t n) { float s = n & 64 ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: population count
void size_count(const float *x, float *out, size_t n) { float s = __builtin_popcountll(n) > 5 ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: leading zeros
void size_zeros(const float *x, float *out, size_t n) { size_t d = n ? 63 - __builtin_clzll(n) : 0; EACH(i, n) out[i] = x[i + (d > 8)]; }
// reject: byte order
void size_swapped(const float *x, float *out, uint32_t n) { float s = __builtin_bswap32(n) & 1 ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: an average that overflows
void middle(const float *x, float *out, uint32_t n) { uint32_t lo = 0, hi = n; while (hi - lo > 1) { uint32_t mid = (lo + hi) / 2; lo = mid; } EACH(i, n) out[i] = x[i] + (float)lo * 0.0f; }
// reject: infinity through a counter
void infinite(const float *x, float *out, size_t n) { float s = 1.0f; EACH(i, n) { s *= 2.0f; out[i] = x[i] + 1.0f / s * 0.0f; } }
// reject: sum in another order from the hundredth term on
float reordered(const float *x, size_t n) { float s = 0, t = 0; EACH(i, n) { if (i < 100) s += x[i]; else t += x[i]; } return s + t; }
// reject: goes backwards in odd rows
void boustrophedon(const float *x, float *out, size_t m, size_t n) { EACH(i, m) EACH(j, n) out[i * n + j] = x[i * n + (i & 1 ? n - 1 - j : j)]; }
// reject: mirrored from the middle
void mirrored(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i < n - i ? i : n - i]; }
// reject: static counter decides
void every_other_call(const float *x, float *out, size_t n) { static unsigned calls; float s = calls++ & 1 ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: thread-local state
void thread_state(const float *x, float *out, size_t n) { static _Thread_local float last; EACH(i, n) { out[i] = last; last = x[i]; } }
// reject: the stack pointer as data
void stack_bits(const float *x, float *out, size_t n) { volatile char here; float s = (uintptr_t)&here & 4096 ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: variable length array
void variable_array(const float *x, float *out, size_t n) { float t[n + 1]; EACH(i, n) t[i] = x[i]; EACH(i, n) out[i] = t[n - 1 - i]; }

/* ---- state in integers */
// reject: a delay line of words
void d_words(const int32_t *x, int32_t *out, size_t n) { int32_t a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0; EACH(i, n) { out[i] = h; h = g; g = f; f = e; e = d; d = c; c = b; b = a; a = x[i]; } }
// reject: a delay line of long words
void d_longs(const int64_t *x, int64_t *out, size_t n) { int64_t a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0; EACH(i, n) { out[i] = h; h = g; g = f; f = e; e = d; d = c; c = b; b = a; a = x[i]; } }
// reject: a delay line of bytes
void d_bytes(const uint8_t *x, uint8_t *out, size_t n) { uint8_t a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0; EACH(i, n) { out[i] = h; h = g; g = f; f = e; e = d; d = c; c = b; b = a; a = x[i]; } }
// reject: bytes of a word as a delay line
void d_shifted(const uint8_t *x, uint8_t *out, size_t n) { uint64_t s = 0; EACH(i, n) { out[i] = s >> 56; s = s << 8 | x[i]; } }
// reject: one bit late by 31
void d_bits(const int32_t *x, int32_t *out, size_t n) { uint32_t s = 0; EACH(i, n) { out[i] = s >> 31; s = s << 1 | (x[i] > 0); } }
// reject: counters as bits late by 40
void d_counter(const float *x, float *out, size_t n) { uint64_t s = 1; EACH(i, n) { out[i] = s >> 40 & 1 ? 0.0f : x[i]; s <<= 1; } }
// reject: a byte counter stored by a size
void d_store(int32_t *out, size_t n) { uint8_t c = 0; EACH(i, n) out[i] = c++; }

/* ---- where a constant lies is no number: another one in every process */
static const float placed[4] = {1, 2, 3, 4};
// reject: bits of the address of a table
void place_bits(const float *x, float *out, size_t n) { float s = (float)((uintptr_t)placed >> 4 & 255); EACH(i, n) out[i] = x[i] * s; }
// reject: the address as a float
void place_number(const float *x, float *out, size_t n) { float s = (float)(uintptr_t)placed; EACH(i, n) out[i] = x[i] * s; }
// reject: code chosen by the address
void place_chosen(const float *x, float *out, size_t n) { int k = (uintptr_t)placed >> 20 > 1000; EACH(i, n) out[i] = k ? x[i] : -x[i]; }
// reject: its bits as those of a float
void place_float(const float *x, float *out, size_t n) { union { uint32_t u; float f; } t = {(uint32_t)(uintptr_t)placed}; EACH(i, n) out[i] = x[i] + t.f; }
// reject: written out
void place_written(uint64_t *out, size_t n) { EACH(i, n) out[i] = (uintptr_t)placed + i; }

/* ---- a counter that steps by the carry of a comparison, as those of ranges in Rust do */
// either: by the test that ends the loop
void carry_own(const float *x, float *out, size_t n) { size_t j = 0; EACH(i, n) { out[i] = x[j]; j += i + 1 < n; } }
// reject: by a test of another size
void carry_other(const float *x, float *out, size_t m, size_t n) { size_t j = 0; EACH(i, n) { out[i] = x[j]; j += i < m; } }
// reject: by a test of itself, so that it stops early
void carry_itself(const float *x, float *out, size_t m, size_t n) { size_t j = 0; EACH(i, n) { out[i] = x[j]; j += j + 1 < m; } }
// reject: by a test with a constant
void carry_few(const float *x, float *out, size_t n) { size_t j = 0; EACH(i, n) { out[i] = x[j]; j += i < 40; } }
// reject: by the test one round early
void carry_early(const float *x, float *out, size_t n) { size_t j = 0; EACH(i, n) { out[i] = x[j]; j += i + 2 < n; } }
// reject: what it is after the loop is written
void carry_last(const float *x, float *out, size_t n) { size_t j = 0, i = 0; do { out[i] = x[i]; i++; j += i < n; } while (i < n); out[j] = 1.0f; }
// reject: two counters, one of which stays behind at the end
float carry_after(const float *x, size_t n) { size_t j = 0, i = 0; float s = 0; do { s += x[i]; i++; j += i < n; } while (i < n); return s * (float)j; }

/* ---- branches on overflow, as languages that check it have them */
// either: a position in an array does not overflow
void over_index(const float *x, float *out, size_t m, size_t n) { EACH(i, m) EACH(j, n) { size_t p; if (__builtin_mul_overflow(i, n, &p) || __builtin_add_overflow(p, j, &p)) __builtin_trap(); out[p] = x[p] * 2.0f; } }
// reject: a product that overflows
void over_product(const float *x, float *out, size_t n) { size_t p; float s = __builtin_mul_overflow(n, (size_t)1 << 40, &p) ? 2.0f : 1.0f; EACH(i, n) out[i] = x[i] * s; }
// reject: a sum of 32 bits that carries from 16 on
void over_sum(const float *x, float *out, uint32_t n) { uint32_t p; float s = __builtin_add_overflow(n, 0xfffffff0u, &p) ? 2.0f : 1.0f; EACH(i, n) out[i] = x[i] * s; }
// reject: an int that overflows
void over_int(const float *x, float *out, int n) { int p; float s = __builtin_add_overflow(n, 2147483600, &p) ? 2.0f : 1.0f; for (int i = 0; i < n; i++) out[i] = x[i] * s; }
// reject: a sum of 64 bits that carries from 500 on
void over_wide(const float *x, float *out, uint64_t n) { uint64_t p; float s = __builtin_add_overflow(n, -500ull, &p) ? 2.0f : 1.0f; EACH(i, n) out[i] = x[i] * s; }

/* ---- an argument that only conditions mention chooses a formula */
// accept: one of three
void mode_three(const float *x, float *out, int mode, size_t n) { EACH(i, n) out[i] = mode == 0 ? x[i] : mode == 1 ? -x[i] : x[i] * x[i]; }
// reject: how long the loop is
void mode_length(const float *x, float *out, int mode, size_t n) { size_t e = mode == 7 ? n / 2 : n; EACH(i, e) out[i] = x[i]; }
// reject: compared with a size
void mode_size(const float *x, float *out, size_t k, size_t n) { EACH(i, n) out[i] = n > k ? x[i] : -x[i]; }
// reject: compared with a position
void mode_position(const float *x, float *out, size_t k, size_t n) { EACH(i, n) out[i] = i > k ? x[i] : -x[i]; }
// reject: which elements are read
void mode_read(const float *x, float *out, size_t k, size_t n) { EACH(i, n) out[i] = x[k > 5 ? n - 1 - i : i]; }
