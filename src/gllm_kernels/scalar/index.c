/* Operators that read or return indices. They are opaque: called as they are, never lifted,
 * because an address or a result that depends on data is not index notation. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* out[i,j] = table[rows[i],j]; the caller has checked every row number against the table */
void scalar_gather(const float *table, const int32_t *rows, float *out, size_t t, size_t n)
{
    for (size_t i = 0; i < t; i++)
        for (size_t j = 0; j < n; j++)
            out[i * n + j] = table[(ptrdiff_t)rows[i] * (ptrdiff_t)n + (ptrdiff_t)j];
}

/* the lowest i with x[i] = max(x); NaN never wins; 0 when n = 0 or nothing exceeds -inf */
int64_t scalar_argmax(const float *x, size_t n)
{
    int64_t best = 0;
    float top = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if (x[i] > top) {
            top = x[i];
            best = (int64_t)i;
        }
    return best;
}
