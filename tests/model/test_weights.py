"""Checkpoints by mapping: right values, and a typed error for everything that is wrong."""

import json
import os
import random
import struct
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from checkpoints import SMALL, random_tensors, write_checkpoint
from safetensors.numpy import save_file

from gllm_kernels.errors import FormatError, GllmError
from gllm_kernels.model import tensorfile
from gllm_kernels.model.checkpoint import Directory
from gllm_kernels.model.config import load_config
from gllm_kernels.model.tensorfile import open_tensors
from gllm_kernels.model.weights import HUGGING_FACE, LAYER_TENSORS, LlamaWeights, find_tensors, load_weights

NORM = "model.norm.weight"
WQ = "model.layers.0.self_attn.q_proj.weight"


def load(directory: Path, **options: object) -> LlamaWeights:
    return Directory(directory).weights(**options)


def split_in_two(directory: Path, index: bool = True) -> None:
    """model.safetensors -> two shards, with or without an index."""
    tensors = random_tensors(SMALL)
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, inside in shards.items():
        save_file({name: tensors[name] for name in inside}, directory / shard)
    (directory / "model.safetensors").unlink()
    if index:
        weight_map = {name: shard for shard, inside in shards.items() for name in inside}
        text = json.dumps({"metadata": {}, "weight_map": weight_map})
        (directory / "model.safetensors.index.json").write_text(text)


def raw_file(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_values_are_exact(tmp_path: Path, dtype: type) -> None:
    stored = {name: values.astype(dtype) for name, values in random_tensors(SMALL).items()}
    weights = load(write_checkpoint(tmp_path, stored))
    for field, (_, name, _) in LAYER_TENSORS.items():
        for index, layer in enumerate(weights.layers):
            found, wanted = getattr(layer, field), stored[f"model.layers.{index}.{name}"]
            assert found.dtype == dtype and found.flags.c_contiguous
            np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(weights.norm, stored[NORM])
    assert weights.head is not weights.embed


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_every_finite_16_bit_pattern_stays_as_it_is(tmp_path: Path, dtype: type) -> None:
    from gllm_kernels.model.weights import load_tensor

    every = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    every = every[np.isfinite(every.astype(np.float32))]
    save_file({"x": every}, tmp_path / "x.safetensors")
    found = load_tensor(open_tensors(tmp_path / "x.safetensors"), "x")
    assert found.view(np.uint16).tolist() == every.view(np.uint16).tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_tensors_are_mapped_and_read_only(tmp_path: Path, dtype: type) -> None:
    write_checkpoint(tmp_path, {n: v.astype(dtype) for n, v in random_tensors(SMALL).items()})
    tracemalloc.start()
    weights = load(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert weights.embed.base is not None and not weights.embed.flags.writeable
    assert peak < weights.bytes_per_token / 2


def test_a_tied_head_is_the_embedding(tmp_path: Path) -> None:
    weights = load(write_checkpoint(tmp_path, tie_word_embeddings=True))
    assert weights.head is weights.embed


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_bytes_per_token_counts_what_one_step_reads(tmp_path: Path, dtype: type) -> None:
    stored = {n: v.astype(dtype) for n, v in random_tensors(SMALL).items()}
    weights = load(write_checkpoint(tmp_path, stored))
    total = sum(v.nbytes for v in stored.values())
    assert weights.bytes_per_token == total - weights.embed.nbytes + weights.embed[0].nbytes


@pytest.mark.parametrize("index", [True, False])
def test_shards(tmp_path: Path, index: bool) -> None:
    write_checkpoint(tmp_path)
    whole = load(tmp_path)
    wanted = [whole.norm.copy(), whole.layers[1].w_down.copy()]
    split_in_two(tmp_path, index)
    found = load(tmp_path)
    np.testing.assert_array_equal(found.norm, wanted[0])
    np.testing.assert_array_equal(found.layers[1].w_down, wanted[1])


def test_progress_counts_bytes_and_can_cancel(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    calls: list[tuple[int, int]] = []
    load(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls) and calls[-1][0] == calls[-1][1]
    with pytest.raises(GllmError, match="cancelled"):
        load(tmp_path, progress=lambda done, total: False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_values_that_are_not_finite(tmp_path: Path, value: float, dtype: type) -> None:
    tensors = {name: v.astype(dtype) for name, v in random_tensors(SMALL).items()}
    tensors[WQ][3, 5] = value
    write_checkpoint(tmp_path, tensors)
    with pytest.raises(FormatError) as caught:
        load(tmp_path)
    assert WQ in str(caught.value) and f"value {3 * 72 + 5} is {value}" in str(caught.value)


def test_wrong_shape_names_tensor_found_and_wanted(tmp_path: Path) -> None:
    tensors = random_tensors(SMALL)
    tensors[WQ] = tensors[WQ][:-1]
    write_checkpoint(tmp_path, tensors)
    with pytest.raises(FormatError) as caught:
        load(tmp_path)
    for word in (WQ, "[71, 72]", "[72, 72]", "model.safetensors", "configuration"):
        assert word in str(caught.value)


def test_missing_left_over_and_unreadable_tensors(tmp_path: Path) -> None:
    tensors = random_tensors(SMALL)
    without = {name: v for name, v in tensors.items() if name != NORM}
    with pytest.raises(FormatError, match=f"{NORM}.*missing"):
        load(write_checkpoint(tmp_path / "a", without))
    with pytest.raises(FormatError, match=r"q_proj\.bias.*not part of"):
        extra = tensors | {"model.layers.0.self_attn.q_proj.bias": np.zeros(72, np.float32)}
        load(write_checkpoint(tmp_path / "b", extra))
    with pytest.raises(FormatError, match=f"{NORM}.*stored as F64; convert"):
        load(write_checkpoint(tmp_path / "c", tensors | {NORM: np.ones(72)}))
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(6, np.float32)}
    load(write_checkpoint(tmp_path / "d", tensors | old))


def test_missing_and_doubled_files(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    save_file({NORM: np.ones(72, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(FormatError, match=f"{NORM}.*also in"):
        load(tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(FormatError, match="no \\*.safetensors"):
        load(tmp_path)


@pytest.mark.parametrize(
    "shard", ["../a.safetensors", "/etc/passwd", "a.bin", "", "x\\a.safetensors", 3]
)
def test_an_index_stays_in_its_directory(tmp_path: Path, shard: object) -> None:
    write_checkpoint(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {NORM: shard}}))
    with pytest.raises(FormatError, match="index.json: weight_map"):
        load(tmp_path)


def test_an_index_that_lies(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"no.such": "model.safetensors"}}))
    with pytest.raises(FormatError, match='index.json: model.safetensors has no tensor "no.such"'):
        load(tmp_path)
    index.write_text(json.dumps({"weight_map": {"x": "gone.safetensors"}}))
    with pytest.raises(FormatError, match="gone.safetensors"):
        load(tmp_path)


def entry(begin: int, end: int, dtype: str = "F32", shape: object = (1,)) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


TILING = "file not fully covered"


@pytest.mark.parametrize(
    ("header", "data", "length", "words"),
    [
        ({}, b"", 1 << 63, "header too large"),
        ({}, b"", (1 << 64) - 1, "header too large"),
        ({}, b"", 3, "invalid header length"),
        (b"", b"", None, "invalid JSON"),
        (b"{x", b"", None, "invalid JSON"),
        (b"[]", b"", None, "invalid type: sequence"),
        (b'{"\xff": 1}', b"", None, "invalid UTF-8"),
        (b'{"\\ud800": {}}', b"", None, "invalid JSON"),
        (b'{"a":{},"a":{}}', b"", None, "missing field"),
        (b'{"a":{"dtype":"F32","dtype":"F32"}}', b"", None, "duplicate field"),
        ({"a": 1}, b"", None, "invalid type: integer"),
        ({"__metadata__": {"a": 1}}, b"", None, "invalid type: integer"),
        ({}, b"1234", None, TILING),
        ({"a": entry(0, 4)}, b"", None, TILING),
        ({"a": entry(0, 4)}, b"12345", None, TILING),
        ({"a": entry(0, 8)}, b"12345678", None, "invalid shape, data type, or offset"),
        ({"a": entry(4, 0)}, b"1234", None, "invalid offset for tensor `a`"),
        ({"a": entry(-4, 0)}, b"1234", None, "integer `-4`"),
        ({"a": entry(0, 4, "F31")}, b"1234", None, "unknown variant `F31`"),
        ({"a": entry(0, 4, shape=(-1,))}, b"1234", None, "integer `-1`"),
        ({"a": entry(0, 4, shape=(1.0,))}, b"1234", None, "floating point `1.0`"),
        ({"a": entry(0, 4, shape=(True,))}, b"1234", None, "boolean `true`"),
        ({"a": entry(0, 0, shape=(1 << 70,))}, b"", None, "floating point"),
        ({"a": entry(0, 0, shape=(1 << 62, 4))}, b"", None, "overflow"),
        ({"a": entry(0, 0, shape=(1 << 61, 1 << 61))}, b"", None, "overflow"),
        ({"a": entry(0, 2, "F4", (3,))}, b"12", None, "byte boundary"),
        ({"a": entry(0, 8, shape=(2,)), "b": entry(4, 8)}, b"12345678", None, "tensor `b`"),
        ({"a": entry(0, 4), "b": entry(0, 4)}, b"1234", None, "invalid offset"),
        ({"a": entry(0, 4), "b": entry(8, 12)}, b"1" * 12, None, "tensor `b`"),
        ({"a": entry(4, 8)}, b"12345678", None, "tensor `a`"),
        ({"a": {"dtype": "F32"}}, b"", None, "missing field `shape`"),
        ({"a\n" * 9999: entry(4, 8)}, b"12345678", None, "a\\na\\na"),
        (b"[" * 200_000, b"", None, "invalid type: sequence"),
        (b'{"a":' * 200_000, b"", None, "invalid JSON"),
        (b'{"a":{"x":' + b"[" * 200_000, b"", None, "recursion limit"),
    ],
)
def test_lying_headers(
    tmp_path: Path, header: object, data: bytes, length: int | None, words: str
) -> None:
    path = raw_file(tmp_path / "x.safetensors", header, data, length)
    text = refusal(path)
    assert words in text and "fetch it again" in text


def refusal(path: Path) -> str:
    """The one bounded line that refuses a file."""
    with pytest.raises(FormatError) as caught:
        open_tensors(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and text.isprintable() and len(text) < 400 + len(str(path))
    return text


def test_a_header_beyond_the_limit_of_the_format(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "x.safetensors", b"{}", length=100_000_001)
    os.truncate(path, 8 + 100_000_001)
    assert "header too large" in refusal(path)


def test_a_repeated_name_cannot_leave_bytes_uncovered(tmp_path: Path) -> None:
    """The library takes the last of two entries; what it takes tiles the data or is refused."""
    first, last = (json.dumps(entry(0, 4, dtype)) for dtype in ("I32", "F32"))
    far = json.dumps(entry(4, 8))
    path = tmp_path / "x.safetensors"
    found = open_tensors(raw_file(path, f'{{"a":{first},"a":{last}}}'.encode(), b"\0\0\x80?"))
    assert found.array("a").tolist() == [1.0]
    assert "tensor `a`" in refusal(
        raw_file(path, f'{{"a":{first},"a":{far}}}'.encode(), b"12345678")
    )


@pytest.mark.parametrize("shape", [(1,) * 65, (0, 1 << 61, 1 << 61)])
def test_shapes_numpy_cannot_hold(tmp_path: Path, shape: tuple[int, ...]) -> None:
    size = 4 * (0 not in shape)
    file = open_tensors(
        raw_file(tmp_path / "x.safetensors", {"a": entry(0, size, shape=shape)}, b"1" * size)
    )
    with pytest.raises(FormatError, match=r'tensor "a" at byte \d+: shape \['):
        file.array("a")


def test_a_shape_of_many_dimensions(tmp_path: Path) -> None:
    tensors = random_tensors(SMALL)
    tensors[NORM] = tensors[NORM].reshape((1,) * 8 + (72,))
    with pytest.raises(FormatError, match=rf'"{NORM}".*shape \[1, .*asks for \[72\]'):
        load(write_checkpoint(tmp_path, tensors))


# fmt: off
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6,
    "F6_E3M2": 6, "I16": 16, "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64, "F64": 64,
}
# fmt: on


@pytest.mark.parametrize("dtype", BITS)
def test_a_tensor_behind_one_of_another_type_is_found(tmp_path: Path, dtype: str) -> None:
    size = BITS[dtype]  # 8 values
    header = {"z": entry(0, size, dtype, (2, 4)), "a": entry(size, size + 4)}
    file = open_tensors(raw_file(tmp_path / "x.safetensors", header, bytes(size) + b"\0\0\x80?"))
    assert file.array("a").tolist() == [1.0]
    with pytest.raises(FormatError, match=f'tensor "z".*stored as {dtype}; convert it to one of'):
        file.array("z")


def test_a_file_replaced_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = raw_file(tmp_path / "old", {"a": entry(0, 8, shape=(2,))}, bytes(8))
    path = raw_file(tmp_path / "x.safetensors", {"a": entry(0, 4)}, bytes(4))
    real = tensorfile.safe_open
    monkeypatch.setattr(tensorfile, "safe_open", lambda _, framework: real(old, framework))
    assert "the tensors end at byte" in refusal(path)


def test_zero_sized_and_unaligned_tensors(tmp_path: Path) -> None:
    header = json.dumps({"a": entry(0, 8, shape=(2,)), "b": entry(8, 8, shape=(0, 4))}).encode()
    for pad in range(4):
        path = raw_file(tmp_path / f"{pad}.safetensors", header + b" " * pad, b"\0\0\x80?\0\0\0@")
        file = open_tensors(path)
        assert file.array("a").tolist() == [1.0, 2.0]
        assert file.array("b").shape == (0, 4)


def test_a_directory_in_place_of_a_file(tmp_path: Path) -> None:
    (write_checkpoint(tmp_path) / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(FormatError, match="model.safetensors: no such file"):
        load(tmp_path)


def test_a_pipe_in_place_of_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.safetensors")
    assert "no such file" in refusal(tmp_path / "x.safetensors")


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = raw_file(tmp_path / "x.safetensors", {})
    monkeypatch.setattr(Path, "open", denied)
    assert "Permission denied; see that it is readable" in refusal(path)


@pytest.mark.parametrize("size", [0, 1, 7, 8])
def test_files_too_short_for_a_header(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\1" + bytes(7) if size == 8 else bytes(size))
    assert "fetch it again" in refusal(path)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    whole = (write_checkpoint(tmp_path) / "model.safetensors").read_bytes()
    config = load_config(tmp_path)
    rng = random.Random(5)
    for size in [len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(40))]:
        (tmp_path / "model.safetensors").write_bytes(whole[:size])
        with pytest.raises(FormatError):
            load_weights(tmp_path, find_tensors(tmp_path), config, HUGGING_FACE)


def test_mutated_headers_load_or_are_refused(tmp_path: Path) -> None:
    """Whatever the bytes, the result is weights of the right shape or a FormatError."""
    path = write_checkpoint(tmp_path) / "model.safetensors"
    whole, config = path.read_bytes(), load_config(tmp_path)
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    seed = int(os.environ.get("GLLM_TEST_SEED", "11"))
    rng = random.Random(seed)
    outcomes = {"loaded": 0, "refused": 0}
    for _ in range(400):
        mutated = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            mutated[rng.randrange(header)] = rng.choice(b'0123456789{}[]",:FBx\xff\0')
        path.write_bytes(mutated)
        try:
            weights = load_weights(tmp_path, find_tensors(tmp_path), config, HUGGING_FACE)
        except FormatError as error:
            assert str(path) in str(error) or str(tmp_path) in str(error), f"seed {seed}"
            outcomes["refused"] += 1
        else:
            assert weights.embed.shape == (331, 72), f"seed {seed}"
            outcomes["loaded"] += 1
    assert outcomes["refused"] > 300
