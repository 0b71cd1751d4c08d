"""GGUF files for the tests, written by the format's own grammar: whole ones from a checkpoint, and small wrong ones."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from gllm_kernels.model.checkpoint import Directory
from gllm_kernels.model.weights import GGUF, LAYER_TENSORS, LlamaWeights

TYPES = {"float32": 0, "float16": 1, "bfloat16": 30}
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


def write_gguf(path: Path, directory: Path, **changes: object) -> Path:
    """The checkpoint of `directory` in one GGUF file; a change to None leaves a key out."""
    checkpoint = Directory(directory)
    c = checkpoint.config
    fields = metadata(directory) | {key.replace("__", "."): of for key, of in changes.items()}
    rows = tensor_rows(checkpoint.weights(), c.heads, c.kv_heads, c.tied)
    path.write_bytes(encode({key: of for key, of in fields.items() if of is not None}, rows))
    return path
