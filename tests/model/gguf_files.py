"""GGUF files for the tests, written by the format's own grammar: whole ones from a checkpoint, and small wrong ones."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np

from gllm_kernels.model.checkpoint import Directory
from gllm_kernels.model.weights import GGUF, LAYER_TENSORS, LlamaWeights
from gllm_kernels.ops import dequantize
from gllm_kernels.scalar.formats import FORMATS

TYPES = {"float32": 0, "float16": 1, "bfloat16": 30}
DTYPES = {0: np.dtype(np.float32), 1: np.dtype(np.float16), 30: np.dtype(ml_dtypes.bfloat16)}
Row = tuple[str, tuple[int, ...], int, bytes]  # name, shape outermost first, type, values
ALIGNMENT = 32


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value(of: object) -> bytes:
    """Type and value of a metadata pair."""
    if isinstance(of, bool):
        return struct.pack("<I?", 7, of)
    if isinstance(of, int):
        return struct.pack("<II", 4, of)
    if isinstance(of, float):
        return struct.pack("<If", 6, of)
    if isinstance(of, str):
        return struct.pack("<I", 8) + text(of)
    items = b"".join(value(item)[4:] for item in of)
    kind = value(of[0] if of else "")[:4]
    return struct.pack("<I", 9) + kind + struct.pack("<Q", len(of)) + items


def tensor_row(name: str, array: np.ndarray) -> Row:
    return name, array.shape, TYPES[array.dtype.name], np.ascontiguousarray(array).tobytes()


def encode(fields: dict[str, object], rows: list[Row], version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(rows), len(fields))
    head += b"".join(text(key) + value(of) for key, of in fields.items())
    data = b""
    for name, shape, kind, values in rows:
        data += bytes(-len(data) % ALIGNMENT)
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, len(data))
        data += values
    return head + bytes(-len(head) % ALIGNMENT) + data


def interleave(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a head from halves to neighbouring pairs."""
    return array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)


def tensor_rows(weights: LlamaWeights, heads: int, kv_heads: int, tied: bool) -> list[Row]:
    rows = [(GGUF.embed, weights.embed), (GGUF.norm, weights.norm)]
    rows += [] if tied else [(GGUF.head, weights.head)]
    for number, layer in enumerate(weights.layers):
        for field, name in GGUF.of_layer(number).items():
            turned = {"wq": heads, "wk": kv_heads}.get(field)
            array = getattr(layer, field)
            rows.append((name, interleave(array, turned) if turned else array))
    assert len(rows) == 2 + (not tied) + len(weights.layers) * len(LAYER_TENSORS)
    return [tensor_row(name, array) for name, array in rows]


def metadata(directory: Path, pre: str = "gpt-2") -> dict[str, object]:
    """Of a checkpoint with a byte-level tokenizer."""
    c = Directory(directory).config
    model = json.loads((directory / "tokenizer.json").read_text())
    names = {id: name for name, id in model["model"]["vocab"].items()}
    special = {row["id"] for row in model["added_tokens"] if row["special"]}
    names |= {row["id"]: row["content"] for row in model["added_tokens"]}
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["model"]["merges"]]
    fields = {
        "general.architecture": "llama", "llama.context_length": c.context,
        "llama.embedding_length": c.hidden_size, "llama.block_count": c.layers,
        "llama.feed_forward_length": c.ffn_size, "llama.attention.head_count": c.heads,
        "llama.attention.head_count_kv": c.kv_heads, "llama.attention.key_length": c.head_dim,
        "llama.attention.value_length": c.head_dim, "llama.rope.dimension_count": c.head_dim,
        "llama.attention.layer_norm_rms_epsilon": float(c.rms_eps),
        "llama.rope.freq_base": float(c.rope_theta), "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre, "tokenizer.ggml.eos_token_id": min(c.eos),
        "tokenizer.ggml.tokens": [names.get(id, f"[unused{id}]") for id in range(c.vocab_size)],
        "tokenizer.ggml.token_type": [3 if id in special else 1 if id in names else 5
                                      for id in range(c.vocab_size)],
    }
    return fields | {"tokenizer.ggml.merges": merges}


def q8_0(array: np.ndarray) -> bytes:
    """Blocks of 32 values: a float16 step, and signed bytes."""
    parts = array.astype(np.float32).reshape(-1, 32)
    step = (np.abs(parts).max(axis=1, keepdims=True) / 127).astype(np.float16)
    codes = np.rint(parts / np.where(step > 0, step, 1).astype(np.float32)).astype(np.int8)
    return np.concatenate([step.view(np.uint8), codes.view(np.uint8)], axis=1).tobytes()


def quantised(rows: list[Row], name: str = "Q8_0") -> list[Row]:
    """Matrices as blocks, random ones of small scales in other formats than Q8_0; vectors as float32."""
    form, random, found = FORMATS.lookup(name), np.random.default_rng(0), []
    for tensor, shape, kind, values in rows:
        array = np.frombuffer(values, DTYPES[kind]).reshape(shape)
        if len(shape) == 1:
            found.append(tensor_row(tensor, array.astype(np.float32)))
        elif name == "Q8_0":
            found.append((tensor, shape, form.gguf, q8_0(array)))
        else:
            blocks = random.integers(0, 256, (array.size // form.values, form.size), np.uint8)
            found.append((tensor, shape, form.gguf, tamed(blocks, name).tobytes()))
    return found


def tamed(blocks: np.ndarray, name: str) -> np.ndarray:
    """Random blocks whose values are about as large as weights and add up to little; copies of such in place of
    the others."""
    with np.errstate(all="ignore"):
        values = dequantize(blocks, name).astype(np.float64)
        size = np.abs(values).max(axis=1)
        unlike = np.abs(np.log(size / 0.1)) + 5 * np.abs(values.mean(axis=1)) / size
    order = np.argsort(np.where(np.isfinite(unlike), unlike, np.inf))
    best = order[: max(1, np.count_nonzero(unlike < 1))]
    return blocks[best[np.arange(len(blocks)) % len(best)]]


def decoded(rows: list[Row]) -> list[Row]:
    """The same values in float32."""
    names = {form.gguf: form.name for form in FORMATS if form.gguf is not None}
    return [tensor_row(name, dequantize(np.frombuffer(values, np.uint8), names[kind]).reshape(shape))
            if kind in names else (name, shape, kind, values) for name, shape, kind, values in rows]


def write_gguf(path: Path, directory: Path, **changes: object) -> Path:
    """The checkpoint of `directory` in one GGUF file; a change to None leaves a key out."""
    checkpoint = Directory(directory)
    c = checkpoint.config
    fields = metadata(directory) | {key.replace("__", "."): of for key, of in changes.items()}
    rows = tensor_rows(checkpoint.weights(), c.heads, c.kv_heads, c.tied)
    path.write_bytes(encode({key: of for key, of in fields.items() if of is not None}, rows))
    return path
