#include "block.h"

/* x = d*s * q - dmin*m:  s and m nibbles [16] | q two bits [64] | d f16 | dmin f16 */
void decode_q2_k(const uint8_t *block, float *out) {
    float d = half(u16(block + 80)), dmin = half(u16(block + 82));
    for (unsigned g = 0; g < 16; g++) {
        const uint8_t *q = block + 16 + g / 8 * 32 + g % 2 * 16;
        float scale = d * (float)(block[g] & 15), least = dmin * (float)(block[g] >> 4);
        for (unsigned i = 0; i < 16; i++)
            *out++ = scale * (float)two(q[i], g / 2 % 4) - least;
    }
}

/* x = d*(s - 32) * (q - 4*!h):  h bits [32] | q two bits [64] | s six bits [12] | d f16 */
void decode_q3_k(const uint8_t *block, float *out) {
    float d = half(u16(block + 108));
    for (unsigned g = 0; g < 16; g++) {
        const uint8_t *s = block + 96, *h = block + g % 2 * 16, *q = h + 32 + g / 8 * 32;
        float scale = d * (float)((four(s[g % 8], g / 8) | two(s[8 + g % 4], g / 4) << 4) - 32);
        for (unsigned i = 0; i < 16; i++)
            *out++ = scale * (float)(two(q[i], g / 2 % 4) - (bit(h[i], g / 2) ? 0 : 4));
    }
}

/* Six bits: of scale g of 8, and of minimum g where `least` is 1. The upper four are in pieces. */
static inline float six(const uint8_t *p, unsigned g, unsigned least) {
    const uint8_t *own = p + 4 * least;
    int bits = g < 4 ? own[g] & 63 : four(p[4 + g], least) | own[g - 4] >> 6 << 4;
    return (float)bits;
}

/* x = d*s * q - dmin*m:  d f16 | dmin f16 | s and m six bits [12] | q nibbles [128] */
void decode_q4_k(const uint8_t *block, float *out) {
    float d = half(u16(block)), dmin = half(u16(block + 2));
    for (unsigned g = 0; g < 8; g++) {
        const uint8_t *q = block + 16 + g / 2 * 32;
        float scale = d * six(block + 4, g, 0), least = dmin * six(block + 4, g, 1);
        for (unsigned i = 0; i < 32; i++)
            *out++ = scale * (float)four(q[i], g % 2) - least;
    }
}

/* Q4_K with a fifth bit of q:  d | dmin | s and m [12] | fifth bits [32] | q nibbles [128] */
void decode_q5_k(const uint8_t *block, float *out) {
    float d = half(u16(block)), dmin = half(u16(block + 2));
    for (unsigned g = 0; g < 8; g++) {
        const uint8_t *h = block + 16, *q = block + 48 + g / 2 * 32;
        float scale = d * six(block + 4, g, 0), least = dmin * six(block + 4, g, 1);
        for (unsigned i = 0; i < 32; i++)
            *out++ = scale * (float)(four(q[i], g % 2) | bit(h[i], g) << 4) - least;
    }
}

/* x = d*s * (q - 32):  q nibbles [128] | q upper two bits [64] | s i8[16] | d f16 */
void decode_q6_k(const uint8_t *block, float *out) {
    float d = half(u16(block + 208));
    for (unsigned g = 0; g < 16; g++) {
        const uint8_t *q = block + g / 8 * 64 + g % 4 * 16;
        const uint8_t *h = block + 128 + g / 8 * 32 + g % 2 * 16;
        float scale = d * (float)(int8_t)block[192 + g];
        for (unsigned i = 0; i < 16; i++)
            *out++ = scale * (float)((four(q[i], g / 4 % 2) | two(h[i], g / 2 % 4) << 4) - 32);
    }
}

/* x = d * q:  d f32 | q i8[256] | sums of q i16[16], for products only */
void decode_q8_k(const uint8_t *block, float *out) {
    float d = real(u32(block));
    for (unsigned i = 0; i < 256; i++)
        out[i] = d * (float)(int8_t)block[4 + i];
}
