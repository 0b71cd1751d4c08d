"""Dequantisation by name, hostile arguments, and a format that is in no catalogue."""

import numpy as np
import pytest
from weight_blocks import bits, blocks_of, decode

import gllm_kernels as gk
from gllm_kernels.scalar.formats import FORMATS, ROWS

EVERY = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


@EVERY
def test_every_format_has_the_bits_of_its_decoder(row):
    blocks = blocks_of(row, 67)
    found = gk.dequantize(blocks, row.name)
    assert found.shape == (len(blocks), row.values) and found.dtype == np.float32
    assert (bits(found) == bits(decode(row, blocks))).all()


def test_shapes():
    blocks = blocks_of(FORMATS.lookup("Q8_0"))[:24]
    flat = gk.dequantize(blocks, "Q8_0").reshape(-1)
    for shape in ((24 * 34,), (2, 3, 4 * 34), (24, 1, 34)):
        found = gk.dequantize(blocks.reshape(shape), "Q8_0")
        assert found.shape == (*shape[:-1], shape[-1] // 34 * 32)
        assert (bits(found.reshape(-1)) == bits(flat)).all()
    assert gk.dequantize(np.empty((3, 0), np.uint8), "Q8_0").shape == (3, 0)
    assert gk.dequantize(np.empty((0, 68), np.uint8), "Q8_0").shape == (0, 64)
    every_other = gk.dequantize(np.repeat(blocks, 2, 0)[::2], "Q8_0")
    assert (bits(every_other.reshape(-1)) == bits(flat)).all()
    out = np.empty((24, 32), np.float32)
    assert gk.dequantize(blocks, "Q8_0", out=out) is out and (bits(out.reshape(-1)) == bits(flat)).all()


def read_only(array):
    array.flags.writeable = False
    return array


GOOD = np.zeros((2, 34), np.uint8)


@pytest.mark.parametrize(("blocks", "out", "match"), [
    (np.zeros((2, 33), np.uint8), None, "33 bytes, which is no multiple of the 34"),
    (np.zeros((2, 34), np.int8), None, "wanted uint8"), (np.zeros((), np.uint8), None, "wanted uint8"),
    ([1.5], None, "wanted uint8"), (None, None, "wanted uint8"), ("abc", None, "wanted uint8"),
    (GOOD, np.zeros((2, 31), np.float32), r"wanted a float32 array of shape \(2, 32\)"),
    (GOOD, np.zeros((2, 32)), "wanted a float32"), (GOOD, [0.0], "`out` is list"),
    (GOOD, np.zeros((32, 2), np.float32).T, "C-contiguous"),
    (GOOD, read_only(np.zeros((2, 32), np.float32)), "writeable"),
])  # fmt: skip
def test_arrays_that_do_not_fit(blocks, out, match):
    with pytest.raises(gk.ShapeError, match=match):
        gk.dequantize(blocks, "Q8_0", out=out)


def test_memory_that_is_shared():
    memory = np.zeros(1024, np.uint8)
    with pytest.raises(gk.ShapeError, match="overlaps"):
        gk.dequantize(memory[:34], "Q8_0", out=memory[32:160].view(np.float32))


@pytest.mark.parametrize("name", ["q8_0", "", None, 8, "Q9_9", ["Q8_0"]])
def test_formats_that_are_not_there(name):
    with pytest.raises(gk.FormatError, match="no weight format"):
        gk.dequantize(GOOD, name)


W3 = """
#include <stdint.h>
#include <string.h>
/* 32 codes of three bits in a stream, a step, and four shifts of two bits for 8 values each */
void decode_w3(const uint8_t *block, float *out)
{
    float step;
    memcpy(&step, block + 12, 4);
    for (unsigned i = 0; i < 32; i++) {
        unsigned at = 3 * i, pair = block[at / 8] | block[at / 8 + 1] << 8;
        int code = (int)(pair >> at % 8 & 7) - 4, shift = block[16] >> 2 * (i / 8) & 3;
        out[i] = step * (float)(1 << shift) * (float)code;
    }
}
"""
DECLARATION = "void decode_w3(const uint8_t *block, float *out)"


def test_a_format_of_ones_own():
    row = gk.compile_format(W3, DECLARATION, 17)
    assert (row.name, row.values, row.size) == ("W3", 32, 17)
    blocks = blocks_of(row)
    codes = np.unpackbits(blocks[:, :12], axis=1, bitorder="little").reshape(-1, 32, 3)
    step = np.ascontiguousarray(blocks[:, 12:16]).view(np.float32)
    shifts = 1 << (blocks[:, 16:] >> np.array([0, 2, 4, 6]) & 3)
    with np.errstate(all="ignore"):
        scale = np.repeat(step * shifts.astype(np.float32), 8, 1)
        want = scale * (codes @ np.array([1, 2, 4]) - 4).astype(np.float32)
    assert (bits(gk.dequantize(blocks, "W3")) == bits(want)).all()
    assert gk.compile_format(W3, DECLARATION, 17) == row
    with pytest.raises(gk.FormatError, match="there already"):
        gk.compile_format(W3, DECLARATION, 18)
    with pytest.raises(gk.FormatError, match="in another way"):
        gk.compile_format(W3.replace("- 4", "- 3"), DECLARATION, 17)


def test_a_format_of_the_package_stays():
    text, of_package = W3.replace("decode_w3", "decode_q4_0"), FORMATS.lookup("Q4_0").declaration
    with pytest.raises(gk.FormatError, match="there already"):
        gk.compile_format(text, of_package, 17)
    with pytest.raises(gk.FormatError, match="decode_<format>"):
        gk.compile_format(W3.replace("decode_w3", "w3"), DECLARATION.replace("decode_w3", "w3"), 17)
