/* Elementwise operators and the level-1 vector updates: out[i] depends on element i only.
 *
 * Plain scalar C. Each function is the definition of its operator: the lifter reads its machine
 * code, and every generated kernel is compared with it. */
#include <math.h>
#include <stddef.h>

/* out[i] = a[i] + b[i] */
void scalar_vec_add(const float *a, const float *b, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = a[i] + b[i];
}

/* out[i] = a[i] - b[i] */
void scalar_vec_sub(const float *a, const float *b, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = a[i] - b[i];
}

/* out[i] = a[i] * b[i] */
void scalar_vec_mul(const float *a, const float *b, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = a[i] * b[i];
}

/* x[i] = x[i] * s */
void scalar_vec_scale(float *x, float s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] * s;
}

/* y[i] = y[i] + a * x[i] */
void scalar_vec_axpy(float a, const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = y[i] + a * x[i];
}

/* out[i] = x[i] / (1 + exp(-x[i])) */
void scalar_silu(const float *x, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] / (1.0f + expf(-x[i]));
}

/* out[i] = x[i]/2 * (1 + tanh(sqrt(2/pi) * (x[i] + 0.044715 * x[i]^3))) */
void scalar_gelu(const float *x, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = x[i];
        float inner = 0.7978845608f * (v + 0.044715f * v * v * v);
        out[i] = 0.5f * v * (1.0f + tanhf(inner));
    }
}

/* out[i] = max(0, x[i]); NaN stays NaN, -0 stays -0 */
void scalar_relu(const float *x, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = 0.0f > x[i] ? 0.0f : x[i];
}

/* out[i] = tanh(x[i]) */
void scalar_tanh(const float *x, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = tanhf(x[i]);
}

/* out[i] = exp(x[i]) */
void scalar_exp(const float *x, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = expf(x[i]);
}

/* out[i] = gate[i] / (1 + exp(-gate[i])) * up[i] */
void scalar_swiglu(const float *gate, const float *up, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}
