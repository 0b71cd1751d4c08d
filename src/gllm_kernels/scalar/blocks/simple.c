#include "block.h"

/* x = d * (q - 8):  d f16 | q[16], low nibbles before high ones */
void decode_q4_0(const uint8_t *block, float *out) {
    float d = half(u16(block));
    for (unsigned i = 0; i < 32; i++)
        out[i] = d * (float)(four(block[2 + i % 16], i / 16) - 8);
}

/* x = d * q + m:  d f16 | m f16 | q[16] */
void decode_q4_1(const uint8_t *block, float *out) {
    float d = half(u16(block)), m = half(u16(block + 2));
    for (unsigned i = 0; i < 32; i++)
        out[i] = d * (float)four(block[4 + i % 16], i / 16) + m;
}

/* x = d * (q - 16):  d f16 | fifth bits u32 | q[16] */
void decode_q5_0(const uint8_t *block, float *out) {
    float d = half(u16(block));
    for (unsigned i = 0; i < 32; i++) {
        int high = bit(block[2 + i / 8], i % 8) << 4;
        out[i] = d * (float)((four(block[6 + i % 16], i / 16) | high) - 16);
    }
}

/* x = d * q + m:  d f16 | m f16 | fifth bits u32 | q[16] */
void decode_q5_1(const uint8_t *block, float *out) {
    float d = half(u16(block)), m = half(u16(block + 2));
    for (unsigned i = 0; i < 32; i++) {
        int high = bit(block[4 + i / 8], i % 8) << 4;
        out[i] = d * (float)(four(block[8 + i % 16], i / 16) | high) + m;
    }
}

/* x = d * q:  d f16 | q i8[32] */
void decode_q8_0(const uint8_t *block, float *out) {
    float d = half(u16(block));
    for (unsigned i = 0; i < 32; i++)
        out[i] = d * (float)(int8_t)block[2 + i];
}

/* x = d * q:  d f16 | sum of x f16, for products only | q i8[32] */
void decode_q8_1(const uint8_t *block, float *out) {
    float d = half(u16(block));
    for (unsigned i = 0; i < 32; i++)
        out[i] = d * (float)(int8_t)block[4 + i];
}

/* One of five digits to base 3 of a byte: their number times 256 / 243, rounded up. */
static const uint8_t POWERS[5] = {1, 3, 9, 27, 81};

static inline float digit(const uint8_t *byte, unsigned k) {
    return (float)(((uint8_t)(*byte * POWERS[k]) * 3 >> 8) - 1);
}

/* x = d * digit:  32 bytes of five digits | 16 of five | 4 of four | d f16 */
void decode_tq1_0(const uint8_t *block, float *out) {
    float d = half(u16(block + 52));
    for (unsigned k = 0; k < 5; k++)
        for (unsigned i = 0; i < 32; i++)
            *out++ = d * digit(block + i, k);
    for (unsigned k = 0; k < 5; k++)
        for (unsigned i = 32; i < 48; i++)
            *out++ = d * digit(block + i, k);
    for (unsigned k = 0; k < 4; k++)
        for (unsigned i = 48; i < 52; i++)
            *out++ = d * digit(block + i, k);
}

/* x = d * (q - 1):  q two bits [64], 32 bytes hold 128 values | d f16 */
void decode_tq2_0(const uint8_t *block, float *out) {
    float d = half(u16(block + 64));
    for (unsigned i = 0; i < 256; i++)
        out[i] = d * (float)(two(block[i / 128 * 32 + i % 32], i / 32 % 4) - 1);
}

/* Twice the values of a float of one sign, two exponent and one mantissa bits. */
static const int8_t E2M1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* x = 2^(e-128) * E2M1[q]:  e u8 | q[16]   (OCP Microscaling Formats 1.0) */
void decode_mxfp4(const uint8_t *block, float *out) {
    uint32_t e = block[0];
    float d = real(e < 2 ? 0x00200000u << e : (e - 1) << 23);
    for (unsigned i = 0; i < 32; i++)
        out[i] = d * (float)E2M1[four(block[1 + i % 16], i / 16)];
}

/* x = d/2 * E2M1[q]:  four d, each a float of four exponent and three mantissa bits, its top bit
   ignored, 0x7f zero | q[32], 8 bytes for 16 values */
void decode_nvfp4(const uint8_t *block, float *out) {
    for (unsigned g = 0; g < 4; g++) {
        int byte = block[g], e = byte >> 3 & 15, m = byte & 7;
        float d = e ? real((uint32_t)((e + 119) << 23 | m << 20)) : (float)m * 0x1p-10f;
        d = byte == 0x7f ? 0.0f : d;
        for (unsigned i = 0; i < 16; i++)
            out[16 * g + i] = d * (float)E2M1[four(block[4 + 8 * g + i % 8], i / 8)];
    }
}

/* x = a float of one sign, four exponent and three mantissa bits; no infinity, 0x7f is NaN */
void decode_fp8_e4m3(const uint8_t *block, float *out) {
    uint32_t m = block[0] & 0x7f;
    float x = m < 8 ? (float)(int32_t)m * 0x1p-9f : real((m << 20) + 0x3c000000);
    x = m == 0x7f ? real(0x7fc00000) : x;
    out[0] = block[0] & 0x80 ? -x : x;
}

/* x = the binary16 whose upper byte this is */
void decode_fp8_e5m2(const uint8_t *block, float *out) { out[0] = half((uint32_t)block[0] << 8); }

/* x = d * (q - z):  d f16 | 2 unused | z u8 | 3 unused | q nibbles [64] in order */
void decode_awq4(const uint8_t *block, float *out) {
    float d = half(u16(block));
    for (unsigned i = 0; i < 128; i++)
        out[i] = d * (float)(four(block[8 + i / 2], i % 2) - block[4]);
}

/* x = d * (q - z - 1), as checkpoints of GPTQ store z; else as AWQ4 */
void decode_gptq4(const uint8_t *block, float *out) {
    float d = half(u16(block));
    for (unsigned i = 0; i < 128; i++)
        out[i] = d * (float)(four(block[8 + i / 2], i % 2) - block[4] - 1);
}

/* x = d * level[q]:  d f16 | q three bits [256], a stream | level f32[8] */
void decode_squeeze(const uint8_t *block, float *out) {
    float d = half(u16(block));
    for (unsigned i = 0; i < 256; i++) {
        unsigned q = u16(block + 2 + 3 * i / 8) >> 3 * i % 8 & 7;
        out[i] = d * real(u32(block + 98 + 4 * q));
    }
}

/* Plain rows, whose scale is no part of them: x = q as a signed number of 8, 4 or 2 bits with the
   offset taken away, or one bit as -1 or 1. The first value has the lowest bits. */
void decode_int8(const uint8_t *block, float *out) { out[0] = (float)(int8_t)block[0]; }

void decode_int4(const uint8_t *block, float *out) {
    for (unsigned i = 0; i < 2; i++)
        out[i] = (float)(four(block[0], i) - 8);
}

void decode_int2(const uint8_t *block, float *out) {
    for (unsigned i = 0; i < 4; i++)
        out[i] = (float)(two(block[0], i) - 2);
}

void decode_int1(const uint8_t *block, float *out) {
    for (unsigned i = 0; i < 8; i++)
        out[i] = (float)(2 * bit(block[0], i) - 1);
}
