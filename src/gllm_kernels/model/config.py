"""`config.json` of a Llama checkpoint -> `LlamaConfig`, checked field by field.

What this package cannot compute exactly is refused here, by name, before any weight is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import FormatError
from .fields import LAYOUT, Fields, read_object

SUPPORTED = ("LlamaForCausalLM",)
SUPPORTED_TYPES = ("llama",)
MAX_DIM = 1 << 24  # no model in use comes near; keeps every product of two sizes in 64 bits


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """Sizes and constants of a Llama: names as in config.json, shorter where it is wordy."""

    vocab_size: int
    hidden_size: int
    ffn_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    rms_eps: float
    rope_theta: float
    tied: bool
    bos: int | None
    eos: frozenset[int]
    interleaved: bool = False  # rotary pairs are neighbours, not halves of a head
    rope_factors: tuple[float, ...] = ()  # each rotary frequency is divided by its own

    @property
    def group(self) -> int:
        """Query heads per key/value head."""
        return self.heads // self.kv_heads

    @property
    def kv_bytes_per_token(self) -> int:
        """f32 keys and values of one position over all layers."""
        return 2 * 4 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class Refusal:
    """A field whose value must be harmless, and what to say when it is not."""

    name: str
    harmless: Callable[[object], bool]
    reason: str


def _null_or(*values: object) -> Callable[[object], bool]:
    return lambda value: value is None or any(value == v and type(value) is type(v) for v in values)


# fmt: off
REFUSALS = (
    Refusal("hidden_act", _null_or("silu"), 'only "silu" is supported'),
    Refusal("attention_bias", _null_or(False), "biases are not supported; use a model without"),
    Refusal("mlp_bias", _null_or(False), "biases are not supported; use a model without"),
    Refusal("quantization_config", _null_or(), "quantised; use the f32, f16 or bf16 checkpoint"),
    Refusal("partial_rotary_factor", _null_or(1, 1.0), "only full rotation (1.0) is supported"),
)
# fmt: on


def load_config(directory: Path) -> LlamaConfig:
    """Read and check `directory/config.json`."""
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "no such directory"
        raise FormatError(f"{directory}: {what}; give a .gguf file, or the directory that holds {LAYOUT}")
    config = parse_config(read_object(directory / "config.json"))
    generation = directory / "generation_config.json"
    if not generation.exists():
        return config
    # what ends a text may be wider here than in config.json: chat models add their end of turn
    ends = read_token_ids(read_object(generation), "eos_token_id", config.vocab_size)
    return replace(config, eos=config.eos | ends)


def parse_config(fields: Fields) -> LlamaConfig:
    check_architecture(fields)
    for row in REFUSALS:
        if not row.harmless(fields.get(row.name)):
            fields.refuse(row.name, row.reason)
    hidden = fields.integer("hidden_size", 1, MAX_DIM)
    heads = fields.integer("num_attention_heads", 1, MAX_DIM)
    vocab = fields.integer("vocab_size", 1, MAX_DIM)
    return LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        ffn_size=fields.integer("intermediate_size", 1, MAX_DIM),
        layers=fields.integer("num_hidden_layers", 1, 4096),
        heads=heads,
        kv_heads=read_kv_heads(fields, heads),
        head_dim=read_head_dim(fields, hidden, heads),
        context=fields.integer("max_position_embeddings", 1, MAX_DIM, default=2048),
        rms_eps=fields.number("rms_norm_eps", 0.0, 1.0, default=1e-6),
        rope_theta=read_rope_theta(fields),
        tied=fields.flag("tie_word_embeddings", default=False),
        bos=read_token_id(fields, "bos_token_id", vocab),
        eos=read_token_ids(fields, "eos_token_id", vocab),
    )


def check_architecture(fields: Fields) -> None:
    """The first architecture named, or the model type where none is, must be one of ours."""
    names = fields.get("architectures")
    supported = ", ".join(SUPPORTED)
    if names is None:
        if fields.get("model_type") not in SUPPORTED_TYPES:
            fields.refuse("model_type", f"supported architectures: {supported}")
    elif not isinstance(names, list) or not names or names[0] not in SUPPORTED:
        fields.refuse("architectures", f"supported architectures: {supported}")


def read_kv_heads(fields: Fields, heads: int) -> int:
    kv_heads = fields.integer("num_key_value_heads", 1, heads, default=heads)
    if heads % kv_heads:
        fields.refuse("num_key_value_heads", f"must divide num_attention_heads = {heads}")
    return kv_heads


def read_head_dim(fields: Fields, hidden: int, heads: int) -> int:
    """head_dim = hidden / heads unless stated; even, because RoPE rotates pairs."""
    if fields.get("head_dim") is None and hidden % heads:
        fields.refuse("num_attention_heads", f"must divide hidden_size = {hidden}")
    head_dim = fields.integer("head_dim", 1, MAX_DIM, default=hidden // heads)
    if head_dim % 2:
        raise FormatError(
            f"{fields.path}: head_dim is {head_dim}; rotary embedding needs an even number"
        )
    return head_dim


def read_rope_theta(fields: Fields) -> float:
    """The base of the rotary angles: a field of its own, or inside `rope_parameters`."""
    theta = 10000.0
    for name in ("rope_scaling", "rope_parameters"):
        if fields.get(name) is not None:
            theta = read_rope_table(fields.nested(name), theta)
    return fields.number("rope_theta", 1e-3, 1e12, default=theta)


def read_rope_table(table: Fields, theta: float) -> float:
    """`{"rope_type": "default", "rope_theta": 10000.0}` -> theta; any scaling is refused."""
    kind = "rope_type" if "rope_type" in table.values else "type"
    if table.get(kind) != "default":
        table.refuse(kind, 'only "default" is supported; scaled rotary embedding is not')
    return table.number("rope_theta", 1e-3, 1e12, default=theta)


def read_token_id(fields: Fields, name: str, vocab: int) -> int | None:
    return None if fields.get(name) is None else fields.integer(name, 0, vocab - 1)


def read_token_ids(fields: Fields, name: str, vocab: int) -> frozenset[int]:
    """A token id, a list of them, or null."""
    value = fields.get(name)
    if not isinstance(value, list):
        found = read_token_id(fields, name, vocab)
        return frozenset() if found is None else frozenset((found,))
    if not all(type(v) is int and 0 <= v < vocab for v in value):
        fields.refuse(name, f"expected token ids from 0 to {vocab - 1}")
    return frozenset(value)
