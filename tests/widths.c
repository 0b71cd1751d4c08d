/* Integers, truth values, doubles, several outputs and steps through memory, as people write them.
 * Every function lifts, and becomes vector code for every type and step in it. */
#include <math.h>
#include <stdint.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdlib.h>
#define EACH(i, n) for (size_t i = 0; i < (n); i++)
void deq(const int8_t *q, const float *s, float *out, size_t m, size_t n) { EACH(i,m) EACH(j,n) out[i*n+j] = (float)q[i*n+j]*s[i]; }
void quant(const float *x, int8_t *q, float inv, size_t n) { EACH(i,n) { float v = x[i]*inv; int r = (int)lrintf(v); r = r > 127 ? 127 : r < -127 ? -127 : r; q[i] = (int8_t)r; } }
void quantl(const float *x, int8_t *q, float inv, size_t n) { EACH(i,n) { long r = lrintf(x[i]*inv); q[i] = (int8_t)(r > 127 ? 127 : r < -127 ? -127 : r); } }
void quantf(const float *x, int8_t *q, float inv, size_t n) { EACH(i,n) { float v = x[i]*inv; v = v > 127.f ? 127.f : v < -127.f ? -127.f : v; q[i] = (int8_t)nearbyintf(v); } }
void quantr(const float *x, uint8_t *q, float inv, int z, size_t n) { EACH(i,n) { int r = (int)roundf(x[i]*inv) + z; q[i] = (uint8_t)(r > 255 ? 255 : r < 0 ? 0 : r); } }
void trunc8(const float *x, int8_t *q, size_t n) { EACH(i,n) q[i] = (int8_t)(x[i]*4.0f); }
void trunc32(const float *x, int32_t *q, size_t n) { EACH(i,n) q[i] = (int32_t)x[i]; }
void truncu32(const float *x, uint32_t *q, size_t n) { EACH(i,n) q[i] = (uint32_t)x[i]; }
void trunc64(const float *x, int64_t *q, size_t n) { EACH(i,n) q[i] = (int64_t)x[i]; }
void addi8(const int8_t *a, const int8_t *b, int8_t *o, size_t n) { EACH(i,n) o[i] = (int8_t)(a[i] + b[i]); }
void muli32(const int32_t *a, const int32_t *b, int32_t *o, size_t n) { EACH(i,n) o[i] = (int32_t)((uint32_t)a[i] * (uint32_t)b[i] - 7u); }
void bits(const uint16_t *a, const uint32_t *b, uint32_t *o, size_t n) { EACH(i,n) o[i] = ((uint32_t)a[i] << 5 | b[i] >> 3) ^ (b[i] & ~0xffu); }
void nib(const uint8_t *a, int8_t *lo, int8_t *hi, size_t n) { EACH(i,n) { lo[i] = (int8_t)((a[i] & 15) - 8); hi[i] = (int8_t)((a[i] >> 4) - 8); } }
void absmax(const int16_t *a, const int16_t *b, int16_t *o, size_t n) { EACH(i,n) { int x = abs(a[i]), y = abs(b[i]); o[i] = (int16_t)(x > y ? x : y); } }
void u2f(const uint32_t *a, float *o, size_t n) { EACH(i,n) o[i] = (float)a[i]; }
void i64f(const int64_t *a, float *o, size_t n) { EACH(i,n) o[i] = (float)a[i]; }
void add64(const int64_t *a, const int64_t *b, int64_t *o, size_t n) { EACH(i,n) o[i] = a[i] * b[i] + (a[i] >> 3); }
void mask(const bool *m, const float *x, const float *y, float *o, size_t n) { EACH(i,n) o[i] = m[i] ? x[i] : y[i]; }
void masku(const uint8_t *m, const float *x, float *o, size_t n) { EACH(i,n) o[i] = m[i] ? x[i] : -1e30f; }
void gt(const float *x, float t, bool *o, size_t n) { EACH(i,n) o[i] = x[i] > t; }
void gtu(const float *x, float t, uint8_t *o, size_t n) { EACH(i,n) o[i] = x[i] > t && x[i] < 2*t; }
void bools(const bool *a, const bool *b, bool *o, size_t n) { EACH(i,n) o[i] = (a[i] && !b[i]) || (!a[i] && b[i]); }
int32_t dot8(const int8_t *a, const int8_t *b, size_t n) { int32_t s = 0; EACH(i,n) s += a[i]*b[i]; return s; }
int64_t sum64(const int32_t *a, size_t n) { int64_t s = 0; EACH(i,n) s += a[i]; return s; }
int countpos(const float *x, size_t n) { int c = 0; EACH(i,n) c += x[i] > 0; return c; }
int countbr(const float *x, size_t n) { int c = 0; EACH(i,n) if (x[i] > 0) c++; return c; }
int maxi(const int32_t *x, size_t n) { int m = -2147483647-1; EACH(i,n) m = x[i] > m ? x[i] : m; return m; }
void rowdot(const int8_t *a, const int8_t *b, int32_t *o, size_t m, size_t n) { EACH(i,m) { int32_t s = 0; EACH(j,n) s += a[i*n+j]*b[j]; o[i] = s; } }
void div7(const int32_t *a, int32_t *o, size_t n) { EACH(i,n) o[i] = a[i]/7; }
void div10u(const uint32_t *a, uint32_t *o, size_t n) { EACH(i,n) o[i] = a[i]/10u + a[i]%10u; }
void div8(const int32_t *a, int32_t *o, size_t n) { EACH(i,n) o[i] = a[i]/8; }
void div16(const int16_t *a, int16_t *o, size_t n) { EACH(i,n) o[i] = a[i]/13; }
void dbl(const float *x, float *o, size_t n) { EACH(i,n) o[i] = (float)((double)x[i]*1.1 + 0.3); }
void dblarr(const double *x, const double *y, double *o, size_t n) { EACH(i,n) o[i] = x[i]*y[i] - sqrt(x[i]*x[i]); }
void meanvar(const float *x, float *o, size_t m, size_t n) { EACH(i,m) { double s=0, q=0; EACH(j,n) { s += x[i*n+j]; } double mu = s/(double)n; EACH(j,n) { double d = x[i*n+j]-mu; q += d*d; } float r = (float)(1.0/sqrt(q/(double)n + 1e-5)); EACH(j,n) o[i*n+j] = (float)(x[i*n+j]-mu)*r; } }
double dsum(const double *x, size_t n) { double s=0; EACH(i,n) s+=x[i]; return s; }
void dynq(const float *x, int8_t *q, float *scale, size_t m, size_t n) { EACH(i,m) { float a = 0; EACH(j,n) { float v = fabsf(x[i*n+j]); a = v > a ? v : a; } float s = a/127.0f; scale[i] = s; float inv = s > 0 ? 1.0f/s : 0.0f; EACH(j,n) { int r = (int)lrintf(x[i*n+j]*inv); q[i*n+j] = (int8_t)(r > 127 ? 127 : r < -127 ? -127 : r); } } }
void tobf(const float *x, uint16_t *o, size_t n) { EACH(i,n) { union { float f; uint32_t u; } t = { x[i] }; o[i] = (t.u & 0x7fffffff) > 0x7f800000 ? (uint16_t)(t.u >> 16 | 64) : (uint16_t)((t.u + 0x7fff + (t.u >> 16 & 1)) >> 16); } }
static float f16_to_f32(uint16_t h) { union { float f; uint32_t u; } t, m; const uint32_t w = (uint32_t)h << 16, sign = w & 0x80000000u, two_w = w + w; t.u = (two_w >> 4) + (0xE0u << 23); float n = t.f * 0x1.0p-112f; m.u = (two_w >> 17) | (126u << 23); float d = m.f - 0.5f; union { float f; uint32_t u; } a = { d }, b = { n }, r; r.u = sign | (two_w < (1u << 27) ? a.u : b.u); return r.f; }
void fromhalf(const uint16_t *x, float *o, size_t n) { EACH(i,n) o[i] = f16_to_f32(x[i]); }
void swd(const uint8_t *k, const float *x, float *o, size_t n) { EACH(i,n) { float v; switch (k[i]) { case 0: v = x[i]; break; case 1: v = -x[i]; break; case 2: v = x[i]*x[i]; break; case 3: v = x[i]+1; break; case 4: v = x[i]-3; break; default: v = 0; } o[i] = v; } }
void shiftv(const int32_t *a, int k, int32_t *o, size_t n) { EACH(i,n) o[i] = a[i] >> k; }
void shiftd(const uint32_t *a, const uint8_t *k, uint32_t *o, size_t n) { EACH(i,n) o[i] = a[i] << (k[i] & 31); }
void iota(int32_t *o, size_t n) { EACH(i,n) o[i] = (int32_t)i; }
void causal(const float *x, const int32_t *len, float *o, size_t m, size_t n) { EACH(i,m) EACH(j,n) o[i*n+j] = (int)j < len[i] ? x[i*n+j] : -1e9f; }
void clampi(const int32_t *a, int8_t *o, size_t n) { EACH(i,n) { int v = a[i]; if (v > 127) v = 127; if (v < -128) v = -128; o[i] = (int8_t)v; } }
void sq(const int16_t *a, int32_t *o, size_t n) { EACH(i,n) o[i] = a[i]*a[i]; }
void rot(const uint32_t *a, uint32_t *o, size_t n) { EACH(i,n) o[i] = a[i] << 7 | a[i] >> 25; }
void rev(const float *x, float *o, size_t n) { EACH(i,n) o[i] = x[n-1-i]; }
void step3(const float *x, float *o, size_t n) { EACH(i,n) o[i] = x[3*i]; }
void step5n(const float *x, float *o, size_t n) { EACH(i,n) o[i] = x[5*(n-1-i)] + x[3*i]; }
void step12(const float *x, float *o, size_t n) { EACH(i,n) o[i] = x[12*i]; }
void revi8(const int8_t *x, int8_t *o, size_t n) { EACH(i,n) o[i] = x[n-1-i] + x[3*i]; }
void revd(const double *x, double *o, size_t n) { EACH(i,n) o[i] = x[n-1-i]; }
void outrev(const float *x, const int16_t *y, int16_t *o, size_t n) { EACH(i,n) o[n-1-i] = (int16_t)(y[i] + (x[n-1-i] > 0)); }
void out3(const float *x, float *o, size_t n) { EACH(i,n) { o[3*i] = x[i]; o[3*i+1] = 2*x[i]; o[3*i+2] = 3*x[i]; } }
void out2(const double *x, double *o, size_t n) { EACH(i,n) { o[2*i] = x[i]; o[2*i+1] = -x[i]; } }
void transp(const float *x, float *o, size_t m, size_t n) { EACH(i,m) EACH(j,n) o[j*m+i] = x[i*n+j]; }
void transpd(const double *x, double *o, size_t m, size_t n) { EACH(i,m) EACH(j,n) o[j*m+i] = x[i*n+j]; }
void rgb(const uint8_t *x, float *o, size_t n) { EACH(i,n) o[i] = 0.299f*x[3*i] + 0.587f*x[3*i+1] + 0.114f*x[3*i+2]; }
void in2(const double *x, double *o, size_t n) { EACH(i,n) { o[i] = x[2*i] + x[2*i+1]; } }
void half2(const float *x, float *o, size_t n) { EACH(i,n) o[2*i+1] = x[i]; }
