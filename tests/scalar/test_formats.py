"""Every decoder gives the bits of the `gguf` package, or of its formula where gguf has no decoder."""

from hashlib import sha256
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from weight_blocks import bits, blocks_of, decode

from gllm_kernels.errors import FormatError
from gllm_kernels.scalar.formats import FORMATS, WeightFormat

VECTORS = Path(__file__).parent / "formats.txt"
STORED = dict(line.split() for line in VECTORS.read_text().splitlines())
ROWS = pytest.mark.parametrize("row", list(FORMATS), ids=lambda row: row.name)


def f16(blocks: np.ndarray, at: int) -> np.ndarray:
    pair = np.ascontiguousarray(blocks[:, at : at + 2])
    return pair.view(np.float16).astype(np.float32)


def nibbles(codes: np.ndarray) -> np.ndarray:
    return np.stack([codes & 15, codes >> 4], -1).reshape(len(codes), -1).astype(np.int32)


def signed(codes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(codes).view(np.int8).astype(np.float32)


def fields(byte: np.ndarray, width: int, offset: int) -> np.ndarray:
    """Fields of a byte, the lowest first."""
    return (byte >> np.arange(0, 8, width) & (1 << width) - 1).astype(np.float32) - offset


def squeeze(b: np.ndarray) -> np.ndarray:
    stream = np.unpackbits(b[:, 2:98], axis=1, bitorder="little").reshape(len(b), 256, 3)
    codes = (stream * np.array([1, 2, 4])).sum(-1)
    levels = np.ascontiguousarray(b[:, 98:130]).view(np.float32)
    return f16(b, 0) * np.take_along_axis(levels, codes, 1)


# formats that gguf does not decode; zero points are bytes, and differences of integers are exact
FORMULAS = {
    "Q8_1": lambda b: f16(b, 0) * signed(b[:, 4:36]),
    "Q8_K": lambda b: np.ascontiguousarray(b[:, :4]).view(np.float32) * signed(b[:, 4:260]),
    "FP8_E4M3": lambda b: b.view(ml_dtypes.float8_e4m3fn).astype(np.float32),
    "FP8_E5M2": lambda b: b.view(ml_dtypes.float8_e5m2).astype(np.float32),
    "AWQ4": lambda b: f16(b, 0) * (nibbles(b[:, 8:]) - b[:, 4:5]).astype(np.float32),
    "GPTQ4": lambda b: f16(b, 0) * (nibbles(b[:, 8:]) - b[:, 4:5] - 1).astype(np.float32),
    "SQUEEZE": squeeze,
    "INT8": signed,
    "INT4": lambda b: fields(b, 4, 8),
    "INT2": lambda b: fields(b, 2, 2),
    "INT1": lambda b: 2 * fields(b, 1, 0) - 1,
}


def reference(row: WeightFormat, blocks: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        if row.name in FORMULAS:
            return FORMULAS[row.name](blocks).astype(np.float32)
        gguf = pytest.importorskip("gguf")
        return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[row.name])


@ROWS
def test_a_decoder_has_the_bits_of_its_reference(row: WeightFormat) -> None:
    blocks = blocks_of(row)
    got, want = bits(decode(row, blocks)), bits(reference(row, blocks))
    wrong = np.argwhere(got != want)
    assert not len(wrong), f"block {wrong[0][0]}, value {wrong[0][1]}, {len(wrong)} in all"


@ROWS
def test_a_decoder_has_the_stored_bits(row: WeightFormat, request: pytest.FixtureRequest) -> None:
    """The same without the gguf package: digests of what it says, `--update-golden` writes them."""
    if request.config.getoption("--update-golden"):
        STORED[row.name] = sha256(bits(reference(row, blocks_of(row))).tobytes()).hexdigest()
        VECTORS.write_text("".join(f"{r.name} {STORED[r.name]}\n" for r in FORMATS if r.name in STORED))
    assert sha256(bits(decode(row, blocks_of(row))).tobytes()).hexdigest() == STORED[row.name]


def test_sizes_are_those_of_gguf() -> None:
    gguf = pytest.importorskip("gguf")
    for row in FORMATS:
        if row.gguf is not None:
            kind = gguf.GGMLQuantizationType(row.gguf)
            assert kind.name == row.name
            # the package counts two floats at the start of Q8_1, files have two halves
            size = 40 if row.name == "Q8_1" else row.size
            assert gguf.GGML_QUANT_SIZES[kind] == (row.values, size)


def test_an_unknown_format_names_its_neighbour() -> None:
    with pytest.raises(FormatError, match="did you mean 'Q4_K'"):
        FORMATS.lookup("q4_k")
    with pytest.raises(FormatError, match="known: Q4_0"):
        FORMATS.lookup("zzzz")
