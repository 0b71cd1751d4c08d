/* Rotary position embedding of x[t][h][2d]: each pair of elements is turned by an angle whose
 * cosine and sine stand in tables of d columns, one row per position. */
#include <stddef.h>

/* half-split pairs (j, j+d), as in Llama checkpoints converted for transformers:
 * out[i,a,j]   = x[i,a,j] * cos[i,j] - x[i,a,j+d] * sin[i,j]
 * out[i,a,j+d] = x[i,a,j+d] * cos[i,j] + x[i,a,j] * sin[i,j] */
void scalar_rope(const float *x, const float *cos, const float *sin, float *out, size_t t,
                 size_t h, size_t d)
{
    for (size_t i = 0; i < t; i++)
        for (size_t a = 0; a < h; a++) {
            const float *lo = x + (i * h + a) * 2 * d;
            float *dst = out + (i * h + a) * 2 * d;
            for (size_t j = 0; j < d; j++) {
                float c = cos[i * d + j], s = sin[i * d + j];
                float u = lo[j], v = lo[j + d];
                dst[j] = u * c - v * s;
                dst[j + d] = v * c + u * s;
            }
        }
}

/* interleaved pairs (2j, 2j+1):
 * out[i,a,2j]   = x[i,a,2j] * cos[i,j] - x[i,a,2j+1] * sin[i,j]
 * out[i,a,2j+1] = x[i,a,2j+1] * cos[i,j] + x[i,a,2j] * sin[i,j] */
void scalar_rope_interleaved(const float *x, const float *cos, const float *sin, float *out,
                             size_t t, size_t h, size_t d)
{
    for (size_t i = 0; i < t; i++)
        for (size_t a = 0; a < h; a++) {
            const float *src = x + (i * h + a) * 2 * d;
            float *dst = out + (i * h + a) * 2 * d;
            for (size_t j = 0; j < d; j++) {
                float c = cos[i * d + j], s = sin[i * d + j];
                float u = src[2 * j], v = src[2 * j + 1];
                dst[2 * j] = u * c - v * s;
                dst[2 * j + 1] = v * c + u * s;
            }
        }
}

/* rope with the table rows pos, pos+1, ..., pos+t-1 */
void scalar_rope_with_pos(const float *x, const float *cos, const float *sin, float *out, size_t t,
                          size_t h, size_t d, size_t pos)
{
    for (size_t i = 0; i < t; i++)
        for (size_t a = 0; a < h; a++) {
            const float *lo = x + (i * h + a) * 2 * d;
            float *dst = out + (i * h + a) * 2 * d;
            for (size_t j = 0; j < d; j++) {
                float c = cos[(pos + i) * d + j], s = sin[(pos + i) * d + j];
                float u = lo[j], v = lo[j + d];
                dst[j] = u * c - v * s;
                dst[j + d] = v * c + u * s;
            }
        }
}

/* rope_interleaved with the table rows pos, pos+1, ..., pos+t-1 */
void scalar_rope_with_pos_interleaved(const float *x, const float *cos, const float *sin,
                                      float *out, size_t t, size_t h, size_t d, size_t pos)
{
    for (size_t i = 0; i < t; i++)
        for (size_t a = 0; a < h; a++) {
            const float *src = x + (i * h + a) * 2 * d;
            float *dst = out + (i * h + a) * 2 * d;
            for (size_t j = 0; j < d; j++) {
                float c = cos[(pos + i) * d + j], s = sin[(pos + i) * d + j];
                float u = src[2 * j], v = src[2 * j + 1];
                dst[2 * j] = u * c - v * s;
                dst[2 * j + 1] = v * c + u * s;
            }
        }
}
