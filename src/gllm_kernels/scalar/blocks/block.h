/* What the decoders of weight formats share. A decoder turns one block into floats:

       void decode_<name>(const uint8_t *block, float *out)

   Bytes are little endian, values in the order of the row, and `a | b` in a comment says what stands
   one after the other in the block. A decoder is the definition of its format: the lifter reads its
   machine code, and every generated kernel is compared with it. */
#ifndef GK_BLOCK_H
#define GK_BLOCK_H

#include <stdint.h>
#include <string.h>

static inline uint32_t u16(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8; }

static inline uint32_t u32(const uint8_t *p) {
    uint32_t word;
    memcpy(&word, p, 4);
    return word;
}

static inline float real(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* The float of an IEEE binary16. */
static inline float half(uint32_t h) {
    uint32_t m = h & 0x7fff;
    float x = m < 0x400 ? (float)(int32_t)m * 0x1p-24f
                        : real((m << 13) + (m < 0x7c00 ? 0x38000000 : 0x70000000));
    return h & 0x8000 ? -x : x;
}

/* Two bits, a nibble, a signed byte, as numbers. */
static inline int two(int byte, int k) { return byte >> 2 * k & 3; }
static inline int four(int byte, int k) { return byte >> 4 * k & 15; }
static inline int bit(int byte, int k) { return byte >> k & 1; }

#endif
