"""GGUF files: what is in them, and a typed error with the byte for everything that is wrong."""

from __future__ import annotations

import os
import random
import resource
import struct
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from checkpoints import SMALL, random_tensors, write_checkpoint
from gguf_files import (
    Row, decoded, encode, interleave, metadata, quantised, tensor_row, tensor_rows, text, write_gguf,
)

from gllm_kernels.config import config
from gllm_kernels.debug.inspect import inspect
from gllm_kernels.errors import FormatError, GllmError
from gllm_kernels.model.checkpoint import Directory, GgufCheckpoint
from gllm_kernels.model.gguf import open_gguf
from gllm_kernels.model.llama import TINY, Llama
from gllm_kernels.scalar.formats import FORMATS

FIELDS = {"general.architecture": "llama", "a.number": 7, "a.list": [1, 2, 3], "a.text": "héllo",
          "some.flag": True, "some.texts": ["", "b", "ccc"], "a.float": 0.5}
ROWS = [tensor_row("one", np.arange(12, dtype=np.float32).reshape(3, 4)),
        tensor_row("two", np.arange(5, dtype=np.float16))]


def write(path: Path, fields: dict[str, object] = FIELDS, rows: list[Row] = ROWS, **options: int) -> Path:
    path.write_bytes(encode(fields, rows, **options))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        open_gguf(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("version", [2, 3])
def test_metadata_and_tensors(tmp_path: Path, version: int) -> None:
    file = open_gguf(write(tmp_path / "x.gguf", version=version))
    assert file.fields.values == FIELDS and file.version == version
    np.testing.assert_array_equal(file.tensors.array("one"), np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(file.tensors.array("two"), np.arange(5))
    assert not file.tensors.array("one").flags.writeable


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_weights_are_those_of_the_checkpoint(tmp_path: Path, dtype: type) -> None:
    stored = {name: values.astype(dtype) for name, values in random_tensors(SMALL).items()}
    directory = write_checkpoint(tmp_path / "hf", stored)
    want = Directory(directory).weights()
    made = GgufCheckpoint(write_gguf(tmp_path / "x.gguf", directory, tokenizer__ggml__pre="gpt-2"))
    weights = made.weights()
    for got, layer in zip(weights.layers, want.layers, strict=True):
        assert np.array_equal(got.wq, interleave(layer.wq, 6)) and got.wk.dtype == dtype
        assert np.array_equal(got.w_down, layer.w_down) and np.array_equal(got.ffn_norm, layer.ffn_norm)
    assert np.array_equal(weights.head, want.head) and not made.config.tied


def test_the_model_of_the_package_from_a_gguf_file(tmp_path: Path) -> None:
    """Rotary pairs lie otherwise, so sums round otherwise; the text is the same."""
    one, two = Llama(TINY), Llama(write_gguf(tmp_path / "tiny.gguf", TINY))
    for prompt in ("def main(", "class A:\n    x = 12345\n", "  h\u00e9llo \u2462 w\u00f6rld\n\n  foo", ""):
        assert two.tokenize(prompt) == one.tokenize(prompt)
        assert two.detokenize(two.tokenize(prompt)) == prompt
    tokens = one.tokenize("import os\n\ndef main(")
    np.testing.assert_allclose(two.logits(tokens), one.logits(tokens), atol=1e-4)
    assert "".join(two.generate("def main(", 40, temp=0)) == "".join(one.generate("def main(", 40, temp=0))


def test_factors_divide_the_rotary_frequencies(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", write_checkpoint(tmp_path / "hf"))
    whole, factors = open_gguf(path), np.linspace(1, 8, 6, dtype=np.float32)
    rows = [tensor_row(n, whole.tensors.array(n)) for n in whole.tensors.entries]
    path.write_bytes(encode(dict(whole.fields.values), [*rows, tensor_row("rope_freqs.weight", factors)]))
    assert GgufCheckpoint(path).config.rope_factors == tuple(factors.tolist())
    from gllm_kernels.model.graph import rope_tables

    cos, _ = rope_tables(GgufCheckpoint(path).config, 9)
    angle = np.arange(9)[:, None] * 10000.0 ** (-np.arange(6) / 6) / factors
    np.testing.assert_allclose(cos, np.cos(angle), atol=1e-6)


def test_the_reference_package_agrees(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = write_gguf(tmp_path / "x.gguf", TINY)
    theirs = gguf.GGUFReader(path)
    ours = open_gguf(path)
    assert [t.name for t in theirs.tensors] == list(ours.tensors.entries)
    for tensor in theirs.tensors:
        entry = ours.tensors.entries[tensor.name]
        assert (entry.begin, entry.size) == (tensor.data_offset, tensor.n_bytes)
    writer = gguf.GGUFWriter(tmp_path / "y.gguf", "llama")
    writer.add_array("some.texts", ["a", "bb"])
    writer.add_float64("some.double", 0.1)
    writer.add_tensor("t", np.arange(6, dtype=np.float32).reshape(2, 3))
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    found = open_gguf(tmp_path / "y.gguf")
    assert found.fields.get("some.texts") == ["a", "bb"] and found.fields.get("some.double") == 0.1
    np.testing.assert_array_equal(found.tensors.array("t"), np.arange(6).reshape(2, 3))


def head(version: int = 3, tensors: int = 0, pairs: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)


def one_tensor(name: str = "t", shape: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0,
               data: bytes = bytes(16), rank: int | None = None) -> bytes:
    row = text(name) + struct.pack("<I", len(shape) if rank is None else rank)
    row += struct.pack(f"<{len(shape)}QIQ", *shape, kind, offset)
    return head(tensors=1) + row + bytes(-(24 + len(row)) % 32) + data


def pair(kind: int, payload: bytes, key: str = "k") -> bytes:
    return head(pairs=1) + text(key) + struct.pack("<I", kind) + payload


U64 = struct.Struct("<Q").pack
WRONG = {
    "empty": (b"", "cannot be mapped"),
    "magic": (b"GGML" + bytes(60), "byte 0: starts with b'GGML'"),
    "version": (head(1), "byte 4: version 1; versions (2, 3)"),
    "big-endian": (head(3 << 24), "version 50331648 (big-endian)"),
    "cut header": (head()[:20], "the file ends inside a number"),
    "many tensors": (head(tensors=1 << 60), "byte 8: 1152921504606846976 entries do not fit"),
    "many pairs": (head(pairs=1 << 60), "byte 16: 1152921504606846976 entries do not fit"),
    "long key": (head(pairs=1) + U64(1 << 40) + bytes(40), "entries do not fit"),
    "bad text": (pair(8, U64(2) + b"\xff\xfe"), "no UTF-8"),
    "bad text in array": (pair(9, struct.pack("<IQ", 8, 1) + U64(2) + b"\xff\xfe"), "no UTF-8"),
    "type of value": (pair(13, bytes(16)), "a value of type 13"),
    "array of arrays": (pair(9, struct.pack("<IQ", 9, 1) + bytes(40)), "an array of type 9"),
    "long array": (pair(9, struct.pack("<IQ", 4, 1 << 61)), "entries do not fit"),
    "array of cut strings": (pair(9, struct.pack("<IQ", 8, 2) + U64(9) + bytes(8)), "in an array"),
    "key twice": (head(pairs=2) + 2 * (text("k") + struct.pack("<IB", 0, 1)), "occurs twice"),
    "alignment": (pair(4, struct.pack("<I", 24), "general.alignment") + bytes(64), "power of two"),
    "huge alignment": (pair(4, struct.pack("<I", 1 << 31), "general.alignment"), "from 1 to 1048576"),
    "rank": (one_tensor(rank=5), "has 5 axes"),
    "type": (one_tensor(kind=99), "of type 99"),
    "misaligned": (one_tensor(offset=4), "no multiple of 32"),
    "beyond": (one_tensor(offset=32), "ends at byte"),
    "half a block": (one_tensor(shape=(48, 2), kind=12), "rows of 48 values are no multiple of the 256 of a Q4_K block"),
    "huge": (one_tensor(shape=(1 << 62, 1 << 62)), "ends at byte"),
    "cut data": (one_tensor(data=bytes(15)), "ends at byte"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_refused_with_their_byte(tmp_path: Path, name: str) -> None:
    content, words = WRONG[name]
    (tmp_path / "x.gguf").write_bytes(content)
    assert words in refusal(tmp_path / "x.gguf")


def test_tensors_may_not_share_bytes_or_names(tmp_path: Path) -> None:
    whole = encode({}, ROWS)
    at = whole.index(b"two") + 3 + 4 + 8 + 4
    (tmp_path / "x.gguf").write_bytes(whole[:at] + U64(0) + whole[at + 8:])
    assert 'overlaps tensor "one"' in refusal(tmp_path / "x.gguf")
    assert "occurs twice" in refusal(write(tmp_path / "y.gguf", rows=[ROWS[0], ROWS[0]]))


def test_quantised_tensors_are_matrices_of_blocks(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(one_tensor(shape=(256, 2), kind=12, data=bytes(2 * 144)))
    file = open_gguf(path)
    assert (file.tensors.entries["t"].dtype, file.tensors.entries["t"].size) == ("Q4_K", 288)
    assert repr(file.tensors.array("t")) == "QTensor(Q4_K, 2 x 256, 288 bytes)"


def tiny_rows() -> list[Row]:
    checkpoint = Directory(TINY)
    c = checkpoint.config
    return tensor_rows(checkpoint.weights(), c.heads, c.kv_heads, c.tied)


def test_a_quantised_model_continues_as_its_values_do(tmp_path: Path) -> None:
    """Q8_0, whose values are nearly those of the checkpoint, and rows of x as bytes."""
    rows, fields = quantised(tiny_rows()), metadata(TINY)
    (tmp_path / "q.gguf").write_bytes(encode(fields, rows))
    (tmp_path / "f.gguf").write_bytes(encode(fields, decoded(rows)))
    exact = Llama(tmp_path / "f.gguf")
    tokens = exact.tokenize("import os\n\ndef main(")
    want = exact.logits(tokens)
    with config(isa="scalar"):  # computes with the values themselves
        np.testing.assert_allclose(Llama(tmp_path / "q.gguf").logits(tokens), want, atol=1e-3)
    model = Llama(tmp_path / "q.gguf")
    assert np.abs(model.logits(tokens) - want).max() < 0.03 * np.abs(want).max()
    text = "".join(exact.generate("def main(", 24, temp=0))
    assert "".join(model.generate("def main(", 24, temp=0)) == text
    single = Llama(tmp_path / "q.gguf", n_threads=1)
    np.testing.assert_array_equal(single.logits(tokens), model.logits(tokens))


@pytest.mark.parametrize("name", [f.name for f in FORMATS if f.gguf is not None])
def test_models_in_every_format_of_the_container(tmp_path: Path, name: str) -> None:
    rows, fields = quantised(tiny_rows(), name), metadata(TINY)
    (tmp_path / "q.gguf").write_bytes(encode(fields, rows))
    (tmp_path / "f.gguf").write_bytes(encode(fields, decoded(rows)))
    tokens = [40]  # of several, random weights make chaos: no rounding is small
    want, got = (Llama(tmp_path / f"{file}.gguf").logits(tokens) for file in "fq")
    assert np.abs(got - want).max() < 0.1 * np.abs(want).max()


def test_broken_scales_are_named(tmp_path: Path) -> None:
    rows = [[*row] for row in quantised(tiny_rows())]
    broken = bytearray(rows[3][3])
    broken[34 * 5 : 34 * 5 + 2] = b"\x00\x7c"  # infinity
    rows[3][3] = bytes(broken)
    (tmp_path / "q.gguf").write_bytes(encode(metadata(TINY), rows))
    with pytest.raises(FormatError, match=f"{rows[3][0]}.*the scale of block 5 is not finite"):
        Llama(tmp_path / "q.gguf")


MODELS = {
    "architecture": ({"general__architecture": "falcon"}, "general.architecture", "supported: llama"),
    "no size": ({"llama__embedding_length": None}, "llama.embedding_length is missing", "integer"),
    "experts": ({"llama__expert_count": 8}, "llama.expert_count is 8", "not supported"),
    "scaling": ({"llama__rope__scaling__type": "yarn"}, "rope.scaling.type", "not supported"),
    "rotation": ({"llama__rope__dimension_count": 4}, "rope.dimension_count is 4", "size of a head"),
    "epsilon": ({"llama__attention__layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon is missing", "number"),
    "heads": ({"llama__attention__head_count_kv": 5}, "head_count_kv is 5", "divide"),
    "tokenizer": ({"tokenizer__ggml__model": "bert"}, "tokenizer.ggml.model", "llama, gpt2"),
    "expression": ({"tokenizer__ggml__pre": "viking"}, "tokenizer.ggml.pre", "llama-bpe"),
    "kinds": ({"tokenizer__ggml__token_type": [1]}, "token_type", "331 integers"),
    "merges": ({"tokenizer__ggml__merges": ["a"]}, "merges[0]", "two tokens"),
    "layers": ({"llama__block_count": 3}, "blk.2.attn_norm.weight", "missing"),
    "left over": ({"llama__block_count": 1}, "blk.1.", "not part"),
    "shape": ({"llama__feed_forward_length": 100}, "ffn_gate.weight", "asks for [100, 72]"),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_no_llama_is_refused_by_key(tmp_path: Path, name: str) -> None:
    changes, *words = MODELS[name]
    path = write_gguf(tmp_path / "x.gguf", write_checkpoint(tmp_path / "hf"), **changes)
    with pytest.raises(FormatError) as caught:
        Llama(path)
    assert all(word in str(caught.value) for word in (str(path), *words)), caught.value


def test_no_such_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    for name in ("pipe.gguf", "none.gguf"):
        with pytest.raises(FormatError, match="no such file; give a GGUF file"):
            Llama(tmp_path / name)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    whole, path = encode(FIELDS, ROWS), tmp_path / "x.gguf"
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        refusal(path)


def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    """10 000 files with some bytes changed: a FormatError or a model of the right sizes, quickly, in little memory."""
    directory = write_checkpoint(tmp_path / "hf")
    tokens = metadata(directory)["tokenizer.ggml.tokens"]
    whole = write_gguf(tmp_path / "x.gguf", directory).read_bytes()
    end = open_gguf(tmp_path / "x.gguf").tensors.entries["token_embd.weight"].begin
    path, seed = tmp_path / "y.gguf", int(os.environ.get("GLLM_TEST_SEED", "3"))
    rng, outcomes, began = random.Random(seed), {"loaded": 0, "refused": 0}, time.process_time()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path.write_bytes(whole)
    with path.open("r+b") as file:
        for _ in range(10_000):
            places = {rng.randrange(end): rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
                      for _ in range(rng.randint(1, 3))}
            for at, byte in places.items():
                file.seek(at)
                file.write(bytes((byte,)))
            file.flush()
            try:
                config = GgufCheckpoint(path).config
                assert config.vocab_size == len(tokens), f"seed {seed}"
                outcomes["loaded"] += 1
            except GllmError as error:
                assert isinstance(error, FormatError) and str(path) in str(error), f"seed {seed}"
                outcomes["refused"] += 1
            for at in places:
                file.seek(at)
                file.write(whole[at : at + 1])
    assert min(outcomes.values()) > 500, outcomes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 64 << 10  # KiB
    assert time.process_time() - began < 120


def test_inspect_shows_metadata_and_tensors(tmp_path: Path) -> None:
    shown = inspect(write_gguf(tmp_path / "x.gguf", TINY))
    for words in ("GGUF version 3", "llama.block_count", "2048 in all]", "20 tensors",
                  "blk.1.ffn_down.weight", "BF16", "256x512", "3.4 MB"):
        assert words in shown
    assert "model.norm.weight" in inspect(TINY)
