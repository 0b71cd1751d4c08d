/* Reductions of one vector to one number, added up from index 0 to n-1. */
#include <math.h>
#include <stddef.h>

/* sum[i<n](a[i] * b[i]) */
float scalar_vec_dot(const float *a, const float *b, size_t n)
{
    float acc = 0.0f;
    for (size_t i = 0; i < n; i++)
        acc += a[i] * b[i];
    return acc;
}

/* sum[i<n](x[i]) */
float scalar_vec_sum(const float *x, size_t n)
{
    float acc = 0.0f;
    for (size_t i = 0; i < n; i++)
        acc += x[i];
    return acc;
}

/* max[i<n](x[i]); -inf when n = 0; x > acc is false for NaN, so NaN never wins */
float scalar_vec_max(const float *x, size_t n)
{
    float acc = -INFINITY;
    for (size_t i = 0; i < n; i++)
        acc = x[i] > acc ? x[i] : acc;
    return acc;
}

/* sum[i<n](x[i] * x[i]) */
float scalar_vec_sum_squares(const float *x, size_t n)
{
    float acc = 0.0f;
    for (size_t i = 0; i < n; i++)
        acc += x[i] * x[i];
    return acc;
}
