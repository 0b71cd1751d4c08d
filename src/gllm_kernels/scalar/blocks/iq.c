#include "block.h"
#include "grids.h"

/* Value k of a row of a grid: two or three bits that choose one of the levels. */
static const int8_t LEVELS2[4] = {8, 25, 43}, LEVELS3[8] = {4, 12, 20, 28, 36, 44, 52, 62};

static inline float grid2(const uint16_t *grid, unsigned row, unsigned k) {
    return (float)LEVELS2[grid[row] >> 2 * k & 3];
}

static inline float grid3(const uint16_t *grid, unsigned row, unsigned k) {
    return (float)LEVELS3[grid[row] >> 3 * k & 7];
}

static inline float ternary(unsigned row, unsigned k) {
    return (float)((IQ1[row] >> 2 * k & 3) - 1);
}

static inline float sign(unsigned byte, unsigned k) { return byte >> k & 1 ? -1.0f : 1.0f; }

/* Eight signs of which seven are stored: their number of ones is even. */
static inline unsigned even(unsigned seven) {
    unsigned parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    return (seven & 127) | ((parity ^ parity >> 1) & 1) << 7;
}

/* x = d*(1/2 + s)/4 * grid * sign:  d f16 | for 32 values each 4 rows u8 and u32: 4 x seven signs,
   s in the upper four bits */
void decode_iq2_xxs(const uint8_t *block, float *out) {
    float d = half(u16(block));
    for (unsigned g = 0; g < 32; g++) {
        const uint8_t *p = block + 2 + g / 4 * 8;
        uint32_t word = u32(p + 4), signs = even(word >> 7 * (g % 4) & 127);
        float scale = d * (0.5f + (float)(int32_t)(word >> 28)) * 0.25f;
        for (unsigned i = 0; i < 8; i++)
            *out++ = scale * grid2(IQ2_XXS, p[g % 4], i) * sign(signs, i);
    }
}

/* x = d*(1/2 + s)/4 * grid * sign:  d f16 | rows of 9 bits and seven signs u16[32] |
   s nibbles [8] */
void decode_iq2_xs(const uint8_t *block, float *out) {
    float d = half(u16(block));
    for (unsigned g = 0; g < 32; g++) {
        unsigned word = u16(block + 2 + 2 * g), signs = even(word >> 9);
        float scale = d * (0.5f + (float)four(block[66 + g / 4], g / 2 % 2)) * 0.25f;
        for (unsigned i = 0; i < 8; i++)
            *out++ = scale * grid2(IQ2_XS, word & 511, i) * sign(signs, i);
    }
}

/* x = d*(1/2 + s)/4 * grid * sign:  d f16 | rows [32] | signs [32] | upper two bits of rows [8] |
   s nibbles [8] */
void decode_iq2_s(const uint8_t *block, float *out) {
    float d = half(u16(block));
    for (unsigned g = 0; g < 32; g++) {
        unsigned row = block[2 + g] | (unsigned)two(block[66 + g / 4], g % 4) << 8;
        float scale = d * (0.5f + (float)four(block[74 + g / 4], g / 2 % 2)) * 0.25f;
        for (unsigned i = 0; i < 8; i++)
            *out++ = scale * grid2(IQ2_S, row, i) * sign(block[34 + g], i);
    }
}

/* x = d*(1/2 + s)/2 * grid * sign:  d f16 | rows of four values [64] | u32[8]: 4 x seven signs, s
   in the upper four bits */
void decode_iq3_xxs(const uint8_t *block, float *out) {
    float d = half(u16(block));
    for (unsigned g = 0; g < 32; g++) {
        uint32_t word = u32(block + 66 + g / 4 * 4), signs = even(word >> 7 * (g % 4) & 127);
        float scale = d * (0.5f + (float)(int32_t)(word >> 28)) * 0.5f;
        for (unsigned i = 0; i < 8; i++)
            *out++ = scale * grid3(IQ3_XXS, block[2 + 2 * g + i / 4], i % 4) * sign(signs, i);
    }
}

/* x = d*(1 + 2*s) * grid * sign:  d f16 | rows of four values [64] | ninth bits of rows [8] |
   signs [32] | s nibbles [4] */
void decode_iq3_s(const uint8_t *block, float *out) {
    float d = half(u16(block));
    for (unsigned g = 0; g < 32; g++) {
        float scale = d * (float)(1 + 2 * four(block[106 + g / 8], g / 4 % 2));
        for (unsigned i = 0; i < 8; i++) {
            unsigned k = 2 * g + i / 4, ninth = (unsigned)bit(block[66 + k / 8], k % 8);
            unsigned row = block[2 + k] | ninth << 8;
            float level = (float)(1 + 2 * (IQ3_S[row] >> 3 * (i % 4) & 7));
            *out++ = scale * level * sign(block[74 + g], i);
        }
    }
}

/* x = d*(1 + 2*s) * (grid +- 1/8):  d f16 | rows [32] | u16[8]: 4 x upper three bits of rows,
   s three bits, sign of 1/8 */
void decode_iq1_s(const uint8_t *block, float *out) {
    float d = half(u16(block));
    for (unsigned g = 0; g < 32; g++) {
        unsigned word = u16(block + 34 + g / 4 * 2);
        unsigned row = block[2 + g] | (word >> 3 * (g % 4) & 7) << 8;
        float scale = d * (float)(int)(2 * (word >> 12 & 7) + 1), shift = 0.125f * sign(word, 15);
        for (unsigned i = 0; i < 8; i++)
            *out++ = scale * (ternary(row, i) + shift);
    }
}

/* x = d*(1 + 2*s) * (grid +- 1/8):  rows [32] | nibbles [16]: upper three bits of rows, sign of
   1/8 | u16[4]: 4 x s three bits, a nibble of d f16 */
void decode_iq1_m(const uint8_t *block, float *out) {
    const uint8_t *p = block + 48;
    float d = half(u16(p) >> 12 | (u16(p + 2) >> 8 & 0xf0) | (u16(p + 4) >> 4 & 0xf00) |
                   (u16(p + 6) & 0xf000));
    for (unsigned g = 0; g < 32; g++) {
        unsigned more = (unsigned)four(block[32 + g / 2], g % 2), row = block[g] | (more & 7) << 8;
        unsigned s = u16(p + g / 8 * 2) >> 3 * (g / 2 % 4) & 7;
        float scale = d * (float)(int)(2 * s + 1), shift = 0.125f * sign(more, 3);
        for (unsigned i = 0; i < 8; i++)
            *out++ = scale * (ternary(row, i) + shift);
    }
}

static const int8_t IQ4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                               1, 13, 25, 38, 53, 69, 89, 113};

/* x = d * IQ4[q]:  d f16 | q[16] */
void decode_iq4_nl(const uint8_t *block, float *out) {
    float d = half(u16(block));
    for (unsigned i = 0; i < 32; i++)
        out[i] = d * (float)IQ4[four(block[2 + i % 16], i / 16)];
}

/* x = d*(s - 32) * IQ4[q]:  d f16 | upper two bits of s u16 | lower four of s [4] |
   q nibbles [128] */
void decode_iq4_xs(const uint8_t *block, float *out) {
    float d = half(u16(block));
    for (unsigned g = 0; g < 8; g++) {
        int s = four(block[4 + g / 2], g % 2) | two(block[2 + g / 4], g % 4) << 4;
        float scale = d * (float)(s - 32);
        for (unsigned i = 0; i < 32; i++)
            *out++ = scale * (float)IQ4[four(block[8 + g * 16 + i % 16], i / 16)];
    }
}
