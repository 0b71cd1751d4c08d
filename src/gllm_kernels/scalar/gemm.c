/* Matrix products, row-major, each element one sum from k index 0 upwards. */
#include <stddef.h>

/* y[i] = sum[j<n](a[i,j] * x[j]) */
void scalar_gemv(const float *a, const float *x, float *y, size_t m, size_t n)
{
    for (size_t i = 0; i < m; i++) {
        float acc = 0.0f;
        for (size_t j = 0; j < n; j++)
            acc += a[i * n + j] * x[j];
        y[i] = acc;
    }
}

/* c[i,j] = sum[p<k](a[i,p] * b[p,j]) */
void scalar_gemm(const float *a, const float *b, float *c, size_t m, size_t n, size_t k)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float acc = 0.0f;
            for (size_t p = 0; p < k; p++)
                acc += a[i * k + p] * b[p * n + j];
            c[i * n + j] = acc;
        }
}

/* c[i,j] = sum[p<k](a[i,p] * b[j,p]): b is stored n x k, as checkpoints store weights */
void scalar_gemm_bt(const float *a, const float *b, float *c, size_t m, size_t n, size_t k)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float acc = 0.0f;
            for (size_t p = 0; p < k; p++)
                acc += a[i * k + p] * b[j * k + p];
            c[i * n + j] = acc;
        }
}

/* c[i,j] = sum[p<k](a[i,p] * b[p,j]) + bias[j] */
void scalar_gemm_bias(const float *a, const float *b, const float *bias, float *c, size_t m,
                      size_t n, size_t k)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float acc = 0.0f;
            for (size_t p = 0; p < k; p++)
                acc += a[i * k + p] * b[p * n + j];
            c[i * n + j] = acc + bias[j];
        }
}
