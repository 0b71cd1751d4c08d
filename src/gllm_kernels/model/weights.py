"""The tensors of a Llama checkpoint, found by name, checked by shape, handed out as they are stored.

A tensor stays mapped, be it f32, f16 or bf16: its pages are the file's, and kernels widen what they
read. Every value is looked at on the way: one that is not finite is an error that names its tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, GllmError, ShapeError, UnsupportedOpError
from ..ops.qtensor import QTensor
from .config import LlamaConfig
from .fields import LAYOUT, read_object, shown
from .tensorfile import AGAIN, Entry, TensorFile, open_tensors

Stored = NDArray[np.generic] | QTensor  # float32, float16, bfloat16, or blocks of a format
Homes = dict[str, TensorFile]  # tensor name -> the file that holds it
Shapes = dict[str, tuple[int, ...]]
Progress = Callable[[int, int], object]  # (bytes done, bytes in all); False cancels
CHUNK = 1 << 18  # values looked at in one go: 1 MB of f32, within a core's share of cache


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer. D hidden, Q = heads x head_dim, K = kv_heads x head_dim, F ffn."""

    attn_norm: Stored  # [D]
    wq: Stored  # [Q, D]
    wk: Stored  # [K, D]
    wv: Stored  # [K, D]
    wo: Stored  # [D, Q]
    ffn_norm: Stored  # [D]
    w_gate: Stored  # [F, D]
    w_up: Stored  # [F, D]
    w_down: Stored  # [D, F]


@dataclass(frozen=True, slots=True)
class LlamaWeights:
    """All tensors, row-major, C-contiguous, as stored. A tied head is the embedding itself."""

    embed: Stored  # [V, D]
    layers: tuple[LayerWeights, ...]
    norm: Stored  # [D]
    head: Stored  # [V, D]

    @property
    def bytes_per_token(self) -> int:
        """Bytes one decode step reads: every layer, the last norm, the head, one embedding row."""
        layers = sum(getattr(w, name).nbytes for w in self.layers for name in w.__slots__)
        row = self.embed.nbytes // self.embed.shape[0]
        return layers + self.norm.nbytes + self.head.nbytes + row


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a kind of checkpoint names the tensors; `layer` takes the number of the layer."""

    embed: str
    norm: str
    head: str
    layer: str
    column: int  # of LAYER_TENSORS
    derived: str  # names that end so hold no weights

    def of_layer(self, number: int) -> dict[str, str]:
        """Fields of LayerWeights and their names."""
        return {field: self.layer.format(number) + row[self.column] for field, row in LAYER_TENSORS.items()}


# fmt: off
LAYER_TENSORS = {  # field of LayerWeights: sizes, name in safetensors, name in GGUF
    "attn_norm": ("D",  "input_layernorm.weight",          "attn_norm.weight"),
    "wq":        ("QD", "self_attn.q_proj.weight",         "attn_q.weight"),
    "wk":        ("KD", "self_attn.k_proj.weight",         "attn_k.weight"),
    "wv":        ("KD", "self_attn.v_proj.weight",         "attn_v.weight"),
    "wo":        ("DQ", "self_attn.o_proj.weight",         "attn_output.weight"),
    "ffn_norm":  ("D",  "post_attention_layernorm.weight", "ffn_norm.weight"),
    "w_gate":    ("FD", "mlp.gate_proj.weight",            "ffn_gate.weight"),
    "w_up":      ("FD", "mlp.up_proj.weight",              "ffn_up.weight"),
    "w_down":    ("DF", "mlp.down_proj.weight",            "ffn_down.weight"),
}
# fmt: on
# rotary frequencies written by old versions of transformers are derived from rope_theta
HUGGING_FACE = Scheme("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", "model.layers.{}.", 1,
                      "rotary_emb.inv_freq")
GGUF = Scheme("token_embd.weight", "output_norm.weight", "output.weight", "blk.{}.", 2, "rope_freqs.weight")


def tensor_shapes(config: LlamaConfig, scheme: Scheme = HUGGING_FACE) -> Shapes:
    """Every tensor the model needs, with its shape."""
    sizes = {
        "V": config.vocab_size,
        "D": config.hidden_size,
        "F": config.ffn_size,
        "Q": config.heads * config.head_dim,
        "K": config.kv_heads * config.head_dim,
    }
    letters = {scheme.embed: "VD", scheme.norm: "D"} | ({} if config.tied else {scheme.head: "VD"})
    for layer in range(config.layers):
        for field, name in scheme.of_layer(layer).items():
            letters[name] = LAYER_TENSORS[field][0]
    return {name: tuple(sizes[axis] for axis in axes) for name, axes in letters.items()}


def load_weights(
    path: Path, homes: Homes, config: LlamaConfig, scheme: Scheme, progress: Progress | None = None
) -> LlamaWeights:
    """Map and check every tensor of the checkpoint."""
    shapes = tensor_shapes(config, scheme)
    check_names(path, homes, shapes, {scheme.head} if config.tied else set(), scheme)
    for name, shape in shapes.items():
        check_shape(homes[name].entries[name], shape)
    total = sum(homes[name].entries[name].size for name in shapes)
    loaded, done = {}, 0
    for name in shapes:
        loaded[name] = load_tensor(homes[name], name)
        if isinstance(loaded[name], QTensor) and (name != scheme.embed or config.tied):
            loaded[name].resident()  # as products read it: here, where progress is shown
        done += homes[name].entries[name].size
        if progress is not None and progress(done, total) is False:
            raise GllmError(f"loading {path} was cancelled by the progress callback")
    return assemble(loaded, config, scheme)


def assemble(loaded: dict[str, Stored], config: LlamaConfig, scheme: Scheme) -> LlamaWeights:
    layers = tuple(
        LayerWeights(**{field: loaded[name] for field, name in scheme.of_layer(number).items()})
        for number in range(config.layers)
    )
    head = loaded[scheme.embed if config.tied else scheme.head]
    return LlamaWeights(loaded[scheme.embed], layers, loaded[scheme.norm], head)


def find_tensors(directory: Path) -> Homes:
    """By the index where there is one, else in all files."""
    index = directory / "model.safetensors.index.json"
    if index.exists():
        return find_indexed(directory, index)
    paths = sorted(directory.glob("*.safetensors"))
    if not paths:
        raise FormatError(f"{directory}: no *.safetensors; a model directory holds {LAYOUT}")
    homes: Homes = {}
    for file in map(open_tensors, paths):
        for name, entry in file.entries.items():
            if name in homes:
                entry.refuse(f"also in {homes[name].path}; keep only one of the two files")
            homes[name] = file
    return homes


def find_indexed(directory: Path, index: Path) -> Homes:
    places = read_object(index).nested("weight_map")
    files: dict[str, TensorFile] = {}
    homes: Homes = {}
    for name in places.values:
        shard = places.text(name)
        # a file beside the index: an index must not reach out of its directory
        if not shard.endswith(".safetensors") or Path(shard).name != shard or "\\" in shard:
            places.refuse(name, "expected the name of a .safetensors file beside the index")
        if shard not in files:
            files[shard] = open_tensors(directory / shard)
        if name not in files[shard].entries:
            raise FormatError(f"{index}: {shard} has no tensor {shown(name)}; {AGAIN}")
        homes[name] = files[shard]
    return homes


def check_names(path: Path, homes: Homes, shapes: Shapes, ignored: set[str], scheme: Scheme) -> None:
    """Nothing may be missing, and nothing may be left over that could have changed the result."""
    missing = [name for name in shapes if name not in homes]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FormatError(f"{path}: tensor {missing[0]!r}{more} is missing; {AGAIN}")
    for name in homes.keys() - shapes.keys() - ignored:
        if not name.endswith(scheme.derived):
            homes[name].entries[name].refuse("not part of a Llama of this configuration")


def check_shape(entry: Entry, wanted: tuple[int, ...]) -> None:
    if entry.shape != wanted:
        entry.refuse(
            f"shape {shown(entry.shape)}, but the model's configuration asks for {shown(wanted)}; "
            "the weights belong to another model"
        )


def load_tensor(file: TensorFile, name: str) -> Stored:
    """The tensor's mapping, every value looked at; of a quantised one the blocks."""
    stored = file.array(name)
    if isinstance(stored, QTensor):
        return checked_blocks(file.entries[name], stored)
    # a header of odd length leaves values off their natural alignment: copied, not mapped
    result = stored if stored.flags.aligned else stored.copy()
    values = result.reshape(-1)
    for start in range(0, values.size, CHUNK):
        check_finite(file.entries[name], values[start : start + CHUNK], start)
    return result


def checked_blocks(entry: Entry, tensor: QTensor) -> QTensor:
    """The tensor, if products can use it and no block has a scale that is not finite."""
    try:
        bad = tensor.first_broken_block()
    except (UnsupportedOpError, ShapeError) as reason:
        entry.refuse(str(reason))
    if bad is not None:
        entry.refuse(f"the scale of block {bad} is not finite; {AGAIN}")
    return tensor


def check_finite(entry: Entry, values: Stored, start: int) -> None:
    finite = np.isfinite(values.astype(np.float32, copy=False))
    if not finite.all():
        at = int(np.argmin(finite))
        entry.refuse(f"value {start + at} is {values[at]}; the training or the conversion failed")
