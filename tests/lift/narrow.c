/* What makes a function look regular at small sizes, second collection; labels as in adversarial.c. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#define EACH(i, n) for (size_t i = 0; i < (n); i++)

// reject: a 16-bit counter in a slot of its own
void short_slot(const float *x, float *out, size_t n) { uint16_t c = 0; EACH(i, n) { out[i] = x[c]; c++; } }
// reject: an 8-bit counter that is always in memory
void byte_slot(const float *x, float *out, size_t n) { volatile uint8_t c = 0; EACH(i, n) { out[i] = x[c]; c = (uint8_t)(c + 1); } }
// reject: a signed byte that counts down
void byte_down(const float *x, float *out, size_t n) { int8_t c = 100; EACH(i, n) { out[i] = x[c]; c--; } }
// reject: two counters, one wraps
void byte_pair(const float *x, float *out, size_t n) { uint8_t c = 0; EACH(i, n) { out[i] = x[i] + x[c]; c += 1; } }
// accept: a number of positive elements
float count_positive(const float *x, size_t n) { int c = 0; EACH(i, n) c += x[i] > 0; return (float)c; }
// accept: a sum of integers that is longer than a float
float sum_bytes(const uint8_t *x, size_t n) { int s = 0; EACH(i, n) s += x[i]; return (float)s; }
// accept: a product of integers that is longer than a float
void long_product(const int16_t *x, const int16_t *y, float *out, size_t n) { EACH(i, n) out[i] = (float)(x[i] * y[i]); }
// reject: elements by their own value
void gathered(const float *x, const uint8_t *k, float *out, size_t n) { EACH(i, n) out[i] = x[k[i]]; }
// accept: integer results
void quantised(const float *x, int8_t *out, size_t n) { EACH(i, n) out[i] = (int8_t)(x[i] * 4.0f); }
// accept: read with the wrong sign by a cast
void other_sign(const int8_t *x, float *out, size_t n) { EACH(i, n) out[i] = (float)*(const uint8_t *)&x[i]; }
// reject: even sizes only
void even_sizes(const float *x, float *out, size_t n) { float s = n & 1 ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: multiples of sixteen are special
void sixteens(const float *x, float *out, size_t n) { float s = (n & 15) == 0 && n > 200 ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: a tail with another formula
void other_tail(const float *x, float *out, size_t n) { size_t i = 0; for (; i + 4 <= n; i += 4) { out[i] = x[i]; out[i + 1] = x[i + 1]; out[i + 2] = x[i + 2]; out[i + 3] = x[i + 3]; } for (; i < n; i++) out[i] = -x[i]; }
// reject: the tail is one too short
void short_tail(const float *x, float *out, size_t n) { size_t i = 0; for (; i + 2 <= n; i += 2) { out[i] = x[i]; out[i + 1] = x[i + 1]; } for (; i + 1 < n; i++) out[i] = x[i]; }
// reject: the third of four is another
void third_of_four(const float *x, float *out, size_t n) { size_t e = n & ~(size_t)3, i = 0; for (; i < e; i += 4) { out[i] = x[i]; out[i + 1] = x[i + 1]; out[i + 2] = -x[i + 2]; out[i + 3] = x[i + 3]; } for (; i < n; i++) out[i] = x[i]; }
// reject: a quotient in an address
void quotient_offset(const float *x, float *out, size_t n) { size_t q = n >> 3; EACH(i, n) out[i] = x[i + q]; }
// reject: half of the sizes by a sum
float first_half(const float *x, size_t n) { float s = 0; EACH(i, n / 2) s += x[i]; return s; }
// reject: remainder by seven
void by_seven(const float *x, float *out, size_t n) { float s = n % 7 == 3 ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: a threshold on a quotient
void far_quotient(const float *x, float *out, size_t n) { float s = (n >> 2) == 90 ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: a wrapped difference of sizes
void wrapped(const float *x, float *out, size_t n) { float s = (n - 210) < 0xE000000000ull ? 2.0f : 1.0f; EACH(i, n) out[i] = s * x[i]; }
// reject: a hash of the counter
void hashed(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i] + (float)((uint32_t)(i * 2654435761u) >> 31); }
static __attribute__((noinline)) float deep(const float *x, size_t n) { return n ? x[0] + 2.0f * deep(x + 1, n - 1) : 0.0f; }
// reject: a function that calls itself
float recursive(const float *x, size_t n) { return deep(x, n); }
static __attribute__((noinline)) float lazy(const float *x, size_t i) { return i > 250 ? -x[i] : x[i]; }
// reject: a threshold inside a function that is called
void call_threshold(const float *x, float *out, size_t n) { EACH(i, n) out[i] = lazy(x, i); }
// reject: a block of bytes that is not the whole array
void part_cleared(float *out, size_t n) { memset(out, 0, n * 2); }
// reject: clears at most 128
void clear_some(float *out, size_t n) { memset(out, 0, 4 * (n < 128 ? n : 128)); }
// reject: copies one less
void copy_less(const float *x, float *out, size_t n) { EACH(i, n) out[i] = 0.0f; if (n) memcpy(out, x, 4 * (n - 1)); }
// reject: double state from element to element
void double_prefix(const float *x, float *out, size_t n) { double s = 0; EACH(i, n) { s += x[i]; out[i] = (float)s; } }
// reject: a stride that is special
void special_stride(const float *x, float *out, size_t m, size_t n, size_t ld) { float s = ld == 77 ? 2.0f : 1.0f; EACH(i, m) EACH(j, n) out[i * n + j] = s * x[i * ld + j]; }
// accept: four at a time and a tail
void ok_unrolled(const float *x, float *out, size_t n) { size_t i = 0; for (; i + 4 <= n; i += 4) { out[i] = x[i] * 2; out[i + 1] = x[i + 1] * 2; out[i + 2] = x[i + 2] * 2; out[i + 3] = x[i + 3] * 2; } for (; i < n; i++) out[i] = x[i] * 2; }
// accept: pairs and the last one
void ok_pairs(const float *x, float *out, size_t n) { for (size_t i = 0; i < n / 2; i++) { out[2 * i] = x[2 * i] + 1; out[2 * i + 1] = x[2 * i + 1] + 1; } if (n & 1) out[n - 1] = x[n - 1] + 1; }
// accept: whole groups by a mask
void ok_masked(const float *x, float *out, size_t n) { size_t e = n & ~(size_t)3, i = 0; for (; i < e; i += 4) { out[i] = -x[i]; out[i + 1] = -x[i + 1]; out[i + 2] = -x[i + 2]; out[i + 3] = -x[i + 3]; } for (; i < n; i++) out[i] = -x[i]; }
// accept: from the end with an unsigned counter
void ok_unsigned_down(const float *x, float *out, size_t n) { for (size_t i = n; i-- > 0;) out[i] = x[i] + 1.0f; }
// accept: double precision inside
void ok_double(const float *x, float *out, size_t n) { EACH(i, n) { double s = (double)x[i] * 1.1; out[i] = (float)(s * s + 0.5); } }
// accept: a sum in double precision
float ok_double_sum(const float *x, size_t n) { double s = 0; EACH(i, n) s += x[i]; return (float)s; }
// accept: bytes with a scale per row
void ok_bytes(const int8_t *x, const float *s, float *out, size_t m, size_t n) { EACH(i, m) EACH(j, n) out[i * n + j] = (float)x[i * n + j] * s[i]; }
// accept: a zero point
void ok_zero_point(const uint8_t *x, const uint8_t *z, float *out, size_t m, size_t n) { EACH(i, m) EACH(j, n) out[i * n + j] = (float)((int)x[i * n + j] - (int)z[i]) * 0.5f; }
// accept: integers of 32 bits
void ok_words(const int32_t *x, float *out, size_t n) { EACH(i, n) out[i] = (float)x[i] * 0.25f; }
// accept: bfloat16 elements
void ok_bfloat(const uint16_t *x, float *out, size_t n) { EACH(i, n) { union { uint32_t u; float f; } t = {(uint32_t)x[i] << 16}; out[i] = t.f * 2.0f; } }
// accept: a mask of integers
void ok_mask(const float *x, const int32_t *k, float *out, size_t n) { EACH(i, n) out[i] = k[i] > 3 ? x[i] : -x[i]; }
// accept: strides as arguments
void ok_strides(const float *x, float *out, size_t m, size_t n, size_t ldx, size_t ldo) { EACH(i, m) EACH(j, n) out[i * ldo + j] = x[i * ldx + j] * 2.0f; }
// accept: powers and other functions of libm
void ok_functions(const float *x, float *out, float p, size_t n) { EACH(i, n) out[i] = powf(fabsf(x[i]), p) + erff(x[i]) * sinf(x[i]); }
static __attribute__((noinline)) float row(const float *x, size_t n) { float s = 0; EACH(i, n) s += x[i]; return s; }
// accept: calls a loop of its own, twice
void ok_calls(const float *x, float *out, size_t m, size_t n) { EACH(i, m) out[i] = row(x + i * n, n) * row(x + i * n, n); }
// accept: a copy
void ok_copy(const float *x, float *out, size_t n) { EACH(i, n) out[i] = x[i]; }
// either: the largest by fmaxf, whose operands compilers exchange (clang writes out what fmaxf does)
float largest_by_fmax(const float *x, size_t n) { float m = x[0]; for (size_t i = 1; i < n; i++) m = fmaxf(m, x[i]); return m; }
// accept: both from one call of sincosf, where a compiler sees that
void turned(const float *x, const float *a, float *out, size_t n) { EACH(i, n) out[i] = x[i] * cosf(a[i]) - sinf(a[i]); }
