"""The metadata of a GGUF file -> `LlamaConfig`, checked key by key.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#standardized-key-value-pairs
"""

from __future__ import annotations

import numpy as np

from .config import MAX_DIM, LlamaConfig
from .fields import Fields
from .gguf import GgufFile
from .gguf_tokenizer import CONTROL, KEY, Vocabulary, read_vocabulary
from .weights import GGUF

ARCHITECTURE = "llama"
END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
# control tokens that end a turn, where the file has no key for them
END_TEXTS = {"<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<end_of_turn>"}


def parse_gguf_config(file: GgufFile) -> LlamaConfig:
    fields = file.fields
    if fields.get("general.architecture") != ARCHITECTURE:
        fields.refuse("general.architecture", f"supported: {ARCHITECTURE}")
    refuse_variants(fields)
    hidden, heads = size(fields, "embedding_length"), size(fields, "attention.head_count")
    vocabulary = read_vocabulary(fields)
    if fields.get(f"{ARCHITECTURE}.attention.key_length") is None and hidden % heads:
        fields.refuse(f"{ARCHITECTURE}.attention.head_count", f"must divide embedding_length = {hidden}")
    head_dim = size(fields, "attention.key_length", hidden // heads)
    if head_dim % 2:
        fields.refuse(f"{ARCHITECTURE}.attention.key_length", f"a head has {head_dim} values; "
                      "rotary embedding needs an even number")
    for name in ("attention.value_length", "rope.dimension_count"):
        if size(fields, name, head_dim) != head_dim:
            fields.refuse(f"{ARCHITECTURE}.{name}", f"expected the size of a head, {head_dim}")
    kv_heads = size(fields, "attention.head_count_kv", heads)
    if heads % kv_heads:
        fields.refuse(f"{ARCHITECTURE}.attention.head_count_kv", f"must divide the {heads} heads")
    return LlamaConfig(
        vocab_size=len(vocabulary.tokens),
        hidden_size=hidden,
        ffn_size=size(fields, "feed_forward_length"),
        layers=size(fields, "block_count"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        context=size(fields, "context_length"),
        rms_eps=epsilon(fields),
        rope_theta=fields.number(f"{ARCHITECTURE}.rope.freq_base", 1e-3, 1e12, default=10000.0),
        tied=GGUF.head not in file.tensors.entries,
        bos=vocabulary.id("bos_token_id"),
        eos=frozenset(ends(vocabulary)),
        interleaved=True,  # the converter permutes the rows of wq and wk so
        rope_factors=rope_factors(file, head_dim),
    )


def size(fields: Fields, name: str, default: int | None = None) -> int:
    return fields.integer(f"{ARCHITECTURE}.{name}", 1, MAX_DIM, default)


def epsilon(fields: Fields) -> float:
    name = f"{ARCHITECTURE}.attention.layer_norm_rms_epsilon"
    if fields.get(name) is None:
        fields.refuse(name, "expected a number from 0 to 1")
    return fields.number(name, 0.0, 1.0, default=0.0)


def refuse_variants(fields: Fields) -> None:
    """What would make another model of it."""
    if fields.get(f"{ARCHITECTURE}.expert_count") not in (None, 0):
        fields.refuse(f"{ARCHITECTURE}.expert_count", "mixtures of experts are not supported")
    if fields.get(f"{ARCHITECTURE}.rope.scaling.type") not in (None, "none"):
        fields.refuse(f"{ARCHITECTURE}.rope.scaling.type", "scaled rotary embedding is not supported")


def ends(vocabulary: Vocabulary) -> set[int]:
    """Ids that end a text."""
    given = {vocabulary.id(key) for key in END_KEYS if vocabulary.fields.get(KEY + key) is not None}
    return given | {id for id in vocabulary.ids(CONTROL) if vocabulary.tokens[id] in END_TEXTS}


def rope_factors(file: GgufFile, head_dim: int) -> tuple[float, ...]:
    """Divisors of the rotary frequencies (Llama 3.1), where the file has them."""
    entry = file.tensors.entries.get(GGUF.derived)
    if entry is None:
        return ()
    factors = file.tensors.array(GGUF.derived).astype(np.float64)
    if factors.shape != (head_dim // 2,) or not np.isfinite(factors).all() or (factors <= 0).any():
        entry.refuse(f"expected {head_dim // 2} positive factors")
    return tuple(factors.tolist())
