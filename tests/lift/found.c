// Functions that the fuzzer found something with; the line says what it was.
#include <math.h>
#include <stddef.h>
#include <stdint.h>
static inline float square(float a) { return a * a; }
static __attribute__((noinline)) float clamped(float a)
{ if (a < -1.0f) return -1.0f; return a > 1.0f ? 1.0f : a; }
static float larger(float a, float b) { if (a >= b) return a; return b; }

// a test of a shared value was exponential
void product_of_squares(const float *x, const float *y, const float *z, float *o, unsigned n, float s) {
  float r1 = -1e30f;
  {
  unsigned i = 0; if (n > 0) do {
  float e = s;
  r1 = e <= r1 ? r1 : e;
  } while (++i < n);
  }
  float r2 = 1.0f;
  { unsigned i = 0;
  for (; i < (n & ~(unsigned)3); i += 4) {
  {
  float e = (r1) * (r1);
  r2 *= e;
  }
  {
  float e = (r1) * (r1);
  r2 *= e;
  }
  {
  float e = (r1) * (r1);
  r2 *= e;
  }
  {
  float e = (r1) * (r1);
  r2 *= e;
  }
  }
  for (; i < n; i++) {
  float e = (r1) * (r1);
  r2 *= e;
  }
  }
  float r3 = 0.0f;
  for (unsigned i = 0; i < n; i++) {
  float e = square(-1.0f);
  if ((e) < (0.0f)) e = ((2.0f)) * ((s)); else if ((r2) < (r1) && (r2) > -1.0f) e = ((r1)) * ((r1));
  r3 = r3 + (e);
  }
  { unsigned i = 0;
  for (; i + 2 <= n; i += 2) {
  {
  float v = ((((r2)) - ((s)))) / (((float)(i + 0)));
  o[(i + 0)] = v;
  }
  {
  float v = ((((r2)) - ((s)))) / (((float)(i + 1)));
  o[(i + 1)] = v;
  }
  }
  for (; i < n; i++) {
  float v = ((((r2)) - ((s)))) / (((float)i));
  o[i] = v;
  }
  }
}

// a chain deeper than the stack
float position_unrolled(const float *x, const float *y, size_t m, size_t n, float s) {
  float best = -INFINITY; float where = 0.0f;
  float r1 = INFINITY;
  for (size_t i = 0; i < m; i++) {
  { size_t j = 0;
  for (; j < (n & ~(size_t)3); j += 4) {
  {
  float e = 6.0f;
  if (e > best) { best = e; where = (float)(j + 0); } e = where;
  r1 = e < r1 ? e : r1;
  }
  {
  float e = 6.0f;
  if (e > best) { best = e; where = (float)(j + 1); } e = where;
  r1 = e < r1 ? e : r1;
  }
  {
  float e = 6.0f;
  if (e > best) { best = e; where = (float)(j + 2); } e = where;
  r1 = e < r1 ? e : r1;
  }
  {
  float e = 6.0f;
  if (e > best) { best = e; where = (float)(j + 3); } e = where;
  r1 = e < r1 ? e : r1;
  }
  }
  for (; j < n; j++) {
  float e = 6.0f;
  if (e > best) { best = e; where = (float)j; } e = where;
  r1 = e < r1 ? e : r1;
  }
  }
  }
  return (((float)n)) / ((r1));
}

// a chain deeper than the stack
void maximum_of_three_loops(const float *x, const float *z, size_t k, float s, size_t n, size_t m, float *o, const float *y) {
  float r1 = 0.0f;
  for (size_t i = 0; i < m; i++) {
  for (size_t j = 0; j < n; j++) {
  { size_t p = 0;
  for (; p < (k & ~(size_t)3); p += 4) {
  {
  float e = square(s);
  r1 = larger(r1, e);
  }
  {
  float e = square(s);
  r1 = larger(r1, e);
  }
  {
  float e = square(s);
  r1 = larger(r1, e);
  }
  {
  float e = square(s);
  r1 = larger(r1, e);
  }
  }
  for (; p < k; p++) {
  float e = square(s);
  r1 = larger(r1, e);
  }
  }
  }
  }
  for (size_t i = 0; i < m; i++) {
  for (size_t j = 0; j < n; j++) {
  for (size_t p = 1; p <= k; p++) {
  float v = ((s)) + ((((r1)) - ((x[(i*n + j)*k + (p - 1)]))));
  o[(i*n + j)*k + (p - 1)] = v;
  }
  }
  }
}

// every branch merged all of memory
void branches_in_three_loops(const float *x, const float *y, const float *z, double *o, double *q, long m, long n, long k) {
  for (long i = 0; i < m; i++) {
  {
  long j = 0; if (n > 0) do {
  { long p = 0;
  for (; p + 4 <= k; p += 4) {
  {
  float v = ((((x[((p + 0)*m + i)*n + j]) == (-0.5f)) ? (x[((p + 0)*m + i)*n + j]) : (1.0f))) / ((x[((p + 0)*m + i)*n + j]));
  if ((v) == (x[((p + 0)*m + i)*n + j])) v = ((v)) + ((3.0f)); else if ((v) == (x[((p + 0)*m + i)*n + j])) v = cosf(x[((p + 0)*m + i)*n + j]);
  o[(i*n + j)*k + (p + 0)] = v;
  q[(i*n + j)*k + (p + 0)] = ((-(o[(i*n + j)*k + (p + 0)]))) * ((o[(i*n + j)*k + (p + 0)]));
  }
  {
  float v = ((((x[((p + 1)*m + i)*n + j]) == (-0.5f)) ? (x[((p + 1)*m + i)*n + j]) : (1.0f))) / ((x[((p + 1)*m + i)*n + j]));
  if ((v) == (x[((p + 1)*m + i)*n + j])) v = ((v)) + ((3.0f)); else if ((v) == (x[((p + 1)*m + i)*n + j])) v = cosf(x[((p + 1)*m + i)*n + j]);
  o[(i*n + j)*k + (p + 1)] = v;
  q[(i*n + j)*k + (p + 1)] = ((-(o[(i*n + j)*k + (p + 1)]))) * ((o[(i*n + j)*k + (p + 1)]));
  }
  {
  float v = ((((x[((p + 2)*m + i)*n + j]) == (-0.5f)) ? (x[((p + 2)*m + i)*n + j]) : (1.0f))) / ((x[((p + 2)*m + i)*n + j]));
  if ((v) == (x[((p + 2)*m + i)*n + j])) v = ((v)) + ((3.0f)); else if ((v) == (x[((p + 2)*m + i)*n + j])) v = cosf(x[((p + 2)*m + i)*n + j]);
  o[(i*n + j)*k + (p + 2)] = v;
  q[(i*n + j)*k + (p + 2)] = ((-(o[(i*n + j)*k + (p + 2)]))) * ((o[(i*n + j)*k + (p + 2)]));
  }
  {
  float v = ((((x[((p + 3)*m + i)*n + j]) == (-0.5f)) ? (x[((p + 3)*m + i)*n + j]) : (1.0f))) / ((x[((p + 3)*m + i)*n + j]));
  if ((v) == (x[((p + 3)*m + i)*n + j])) v = ((v)) + ((3.0f)); else if ((v) == (x[((p + 3)*m + i)*n + j])) v = cosf(x[((p + 3)*m + i)*n + j]);
  o[(i*n + j)*k + (p + 3)] = v;
  q[(i*n + j)*k + (p + 3)] = ((-(o[(i*n + j)*k + (p + 3)]))) * ((o[(i*n + j)*k + (p + 3)]));
  }
  }
  for (; p < k; p++) {
  float v = ((((x[(p*m + i)*n + j]) == (-0.5f)) ? (x[(p*m + i)*n + j]) : (1.0f))) / ((x[(p*m + i)*n + j]));
  if ((v) == (x[(p*m + i)*n + j])) v = ((v)) + ((3.0f)); else if ((v) == (x[(p*m + i)*n + j])) v = cosf(x[(p*m + i)*n + j]);
  o[(i*n + j)*k + p] = v;
  q[(i*n + j)*k + p] = ((-(o[(i*n + j)*k + p]))) * ((o[(i*n + j)*k + p]));
  }
  }
  } while (++j < n);
  }
  }
}

// paths through branches multiply
float branches_unrolled(const double *x, size_t n, float s) {
  float r1 = 0.0f;
  { size_t i = 0;
  for (; i < (n & ~(size_t)3); i += 4) {
  {
  float e = x[(i + 0)];
  if ((x[(i + 0)]) > (x[(i + 0)])) e = x[(i + 0)];
  r1 = (e) + r1;
  }
  {
  float e = x[(i + 1)];
  if ((x[(i + 1)]) > (x[(i + 1)])) e = x[(i + 1)];
  r1 = (e) + r1;
  }
  {
  float e = x[(i + 2)];
  if ((x[(i + 2)]) > (x[(i + 2)])) e = x[(i + 2)];
  r1 = (e) + r1;
  }
  {
  float e = x[(i + 3)];
  if ((x[(i + 3)]) > (x[(i + 3)])) e = x[(i + 3)];
  r1 = (e) + r1;
  }
  }
  for (; i < n; i++) {
  float e = x[i];
  if ((x[i]) > (x[i])) e = x[i];
  r1 = (e) + r1;
  }
  }
  float r2 = 0.0f;
  for (size_t i = 1; i <= n; i++) {
  float e = (float)(0.5 * (((2.0f)) - ((s))));
  e = e - x[(i - 1)];
  r2 = (e) + r2;
  }
  float r3 = INFINITY;
  for (size_t i = 0; i < n; i++) {
  float e; e = r1;
  switch ((e) > (x[i + 1])) { case 0: e = powf((r2), (r1)); break; default: e = ((x[i + 1]) < (s)) ? (r1) : (r2); }
  r3 = e < r3 ? e : r3;
  }
  return ((s)) / (((s) * (s)));
}

// no sizes were left that are no constants of the code
void full_of_constants(const float *x, const float *y, float *o, size_t m, size_t n) {
  for (size_t i = 0; i < m; i++) {
  { size_t j = 0;
  for (; j + 4 <= n; j += 4) {
  {
  float v; v = (float)((double)((((o[i*n + (j + 0)])) + ((square(o[i*n + (j + 0)]))))) * ((((x[i*n + (j + 0)])) * ((y[i*n + (j + 0)])))));
  if ((x[i*n + (j + 0)]) >= ((float)(j + 0))) v = fabsf(-2.5f); else v = ((x[i*n + (j + 0)])) / ((x[i*n + (j + 0)]));
  o[i*n + (j + 0)] = v;
  }
  {
  float v; v = (float)((double)((((o[i*n + (j + 1)])) + ((square(o[i*n + (j + 1)]))))) * ((((x[i*n + (j + 1)])) * ((y[i*n + (j + 1)])))));
  if ((x[i*n + (j + 1)]) >= ((float)(j + 1))) v = fabsf(-2.5f); else v = ((x[i*n + (j + 1)])) / ((x[i*n + (j + 1)]));
  o[i*n + (j + 1)] = v;
  }
  {
  float v; v = (float)((double)((((o[i*n + (j + 2)])) + ((square(o[i*n + (j + 2)]))))) * ((((x[i*n + (j + 2)])) * ((y[i*n + (j + 2)])))));
  if ((x[i*n + (j + 2)]) >= ((float)(j + 2))) v = fabsf(-2.5f); else v = ((x[i*n + (j + 2)])) / ((x[i*n + (j + 2)]));
  o[i*n + (j + 2)] = v;
  }
  {
  float v; v = (float)((double)((((o[i*n + (j + 3)])) + ((square(o[i*n + (j + 3)]))))) * ((((x[i*n + (j + 3)])) * ((y[i*n + (j + 3)])))));
  if ((x[i*n + (j + 3)]) >= ((float)(j + 3))) v = fabsf(-2.5f); else v = ((x[i*n + (j + 3)])) / ((x[i*n + (j + 3)]));
  o[i*n + (j + 3)] = v;
  }
  }
  for (; j < n; j++) {
  float v; v = (float)((double)((((o[i*n + j])) + ((square(o[i*n + j]))))) * ((((x[i*n + j])) * ((y[i*n + j])))));
  if ((x[i*n + j]) >= ((float)j)) v = fabsf(-2.5f); else v = ((x[i*n + j])) / ((x[i*n + j]));
  o[i*n + j] = v;
  }
  }
  }
}

// rows longer than their stride were compared
void rows_of_three(const uint8_t *x, const int32_t *y, float *o, unsigned m, unsigned n) {
  for (unsigned i = 0; i < m; i++) {
  {
  __typeof__(*x) *p1 = x + i*n + 0;
  __typeof__(*x) *p3 = x + 0;
  __typeof__(*o) *p5 = o + i*n + 0;
  for (unsigned j = 0; j < 3; j++) {
  float v; v = (isnan((float)((*p1)))) ? (expm1f(6.0f)) : (-((((*p1))) - (((*p3)))));
  if (isnan((float)((*p1)))) v = ((v)) - ((v));
  (*p5) = v;
  p1++;
  p3++;
  p5++;
  }
  }
  }
}

// first sizes were the product of large ones
void two_outputs_three_loops(const float *x, float s, const float *z, size_t m, const float *y, size_t n, float *q, float *o, size_t k) {
  {
  size_t i = 0; while (i < m) {
  for (size_t j = 0; j < n; j++) {
  for (size_t p = 0; p < k; p++) {
  float v = ((s) > (0.0f) || (0.0f) > 2.0f) ? (fmaf((0.0f), (s), (0.0f))) : (1.0f / (((s)) / ((o[(i*n + j)*k + p]))));
  o[(i*n + j)*k + p] = 0.0f;
  o[(i*n + j)*k + p] += v;
  q[(i*n + j)*k + p] = sqrtf(fminf((s), (v)));
  }
  }
  i++;
  }
  }
}

// the walks over one formula were many and long
void position_in_three_loops(const float *x, const float *y, const float *z, float *o, float *q, size_t m, size_t n, size_t k) {
  float best = -INFINITY; float where = 0.0f;
  for (size_t i = 0; i < m; i++) {
  for (size_t j = n; j-- > 0;) {
  for (size_t p = 1; p <= k; p++) {
  float v; v = ((((x[i*k + (p - 1)])) / (((float)((double)((y[((p - 1)*n + j)*m + i])) * ((x[i*k + (p - 1)]))))))) - ((((x[i*k + (p - 1)])) * ((x[i*k + (p - 1)]))));
  if ((y[((p - 1)*n + j)*m + i]) == (-0.5f)) v = ((x[i*k + (p - 1)])) * ((y[((p - 1)*n + j)*m + i])); else v = y[((p - 1)*n + j)*m + i];
  if (v > best) { best = v; where = (float)(p - 1); } v = where;
  o[(i*n + j)*k + (p - 1)] = v;
  q[(i*n + j)*k + (p - 1)] = ((((0.044715f)) / ((v)))) / ((v));
  }
  }
  }
}

// lifts: two interleaved outputs, written from the end
void interleaved_falling(const float *x, float *o, size_t n)
{ for (size_t i = n; i > 0; i--) { o[2*(i - 1)] = -x[i - 1]; o[2*(i - 1) + 1] = x[i - 1] * 2.0f; } }

// lifts: 32-bit index, four at a time
void int_rows_by_four(const float *x, float *o, int m, int n)
{ for (int i = 0; i < m; i++) { int j = 0;
  for (; j + 4 <= n; j += 4) { o[i*n + j] = x[i*n + j] + 1.0f; o[i*n + j + 1] = x[i*n + j + 1] + 1.0f;
    o[i*n + j + 2] = x[i*n + j + 2] + 1.0f; o[i*n + j + 3] = x[i*n + j + 3] + 1.0f; }
  for (; j < n; j++) o[i*n + j] = x[i*n + j] + 1.0f; } }

// lifts: interleaved rows with a 32-bit index
void int_rows_interleaved(const float *x, float *o, int m, int n)
{ for (int i = 0; i < m; i++) for (int j = 0; j < n; j++)
  { o[2*(i*n + j)] = x[i*n + j]; o[2*(i*n + j) + 1] = -x[i*n + j]; } }

// lifts: the order of the operands says which of two zeros stays
float least_term_first(const float *x, size_t n)
{ float r = INFINITY; for (size_t i = 0; i < n; i++) r = fminf(x[i], r); return r; }

// lifts: the order of the operands says which of two zeros stays
float largest_term_last(const float *x, size_t n)
{ float r = -INFINITY; for (size_t i = 0; i < n; i++) r = fmaxf(r, x[i]); return r; }

// lifts: -0 stays -0 where nothing is added
void added_in_place(const float *x, const float *y, float *o, size_t n)
{ for (size_t i = 0; i < n; i++) { o[i] = x[i]; if (y[i] > 1.0f) o[i] = x[i] + y[i]; } }

// lifts: strides may be given in any order; rows that overlap are no test of it
void added_to_rows(const float *x, float *o, size_t m, size_t n, size_t k, size_t ld)
{ for (size_t i = 0; i < m; i++) for (size_t j = 0; j < n; j++)
  { float s = o[i*ld + j]; for (size_t p = 0; p < k; p++) s += x[p]; o[i*ld + j] = s; } }
