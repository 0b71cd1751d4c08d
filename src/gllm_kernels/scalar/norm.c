/* Operators that normalise each row of an m x n matrix by a reduction over that row. */
#include <math.h>
#include <stddef.h>

/* out[i,j] = exp(x[i,j] - max[k<n](x[i,k])) / sum[k<n](exp(x[i,k] - max[l<n](x[i,l]))) */
void scalar_softmax(const float *x, float *out, size_t m, size_t n)
{
    for (size_t i = 0; i < m; i++) {
        const float *row = x + i * n;
        float *dst = out + i * n;
        float top = -INFINITY;
        for (size_t j = 0; j < n; j++)
            top = row[j] > top ? row[j] : top;
        float total = 0.0f;
        for (size_t j = 0; j < n; j++) {
            float e = expf(row[j] - top);
            dst[j] = e;
            total += e;
        }
        for (size_t j = 0; j < n; j++)
            dst[j] = dst[j] / total;
    }
}

/* out[i,j] = x[i,j] * w[j] / sqrt(sum[k<n](x[i,k] * x[i,k]) / n + eps)
 * n is converted as a signed number: one cvtsi2ss instead of a branch on its top bit. */
void scalar_rms_norm(const float *x, const float *w, float *out, size_t m, size_t n, float eps)
{
    for (size_t i = 0; i < m; i++) {
        const float *row = x + i * n;
        float *dst = out + i * n;
        float squares = 0.0f;
        for (size_t j = 0; j < n; j++)
            squares += row[j] * row[j];
        float rms = sqrtf(squares / (float)(ptrdiff_t)n + eps);
        for (size_t j = 0; j < n; j++)
            dst[j] = row[j] * w[j] / rms;
    }
}

/* out[i,j] = (x[i,j] - mean) / sqrt(var + eps) * w[j] + b[j]
 * mean = sum[k<n](x[i,k]) / n;  var = sum[k<n]((x[i,k] - mean)^2) / n */
void scalar_layer_norm(const float *x, const float *w, const float *b, float *out, size_t m,
                       size_t n, float eps)
{
    for (size_t i = 0; i < m; i++) {
        const float *row = x + i * n;
        float *dst = out + i * n;
        float total = 0.0f;
        for (size_t j = 0; j < n; j++)
            total += row[j];
        float mean = total / (float)(ptrdiff_t)n;
        float squares = 0.0f;
        for (size_t j = 0; j < n; j++) {
            float centred = row[j] - mean;
            squares += centred * centred;
        }
        float deviation = sqrtf(squares / (float)(ptrdiff_t)n + eps);
        for (size_t j = 0; j < n; j++)
            dst[j] = (row[j] - mean) / deviation * w[j] + b[j];
    }
}
