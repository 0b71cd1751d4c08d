"""Small random checkpoints, written the way Hugging Face writes them."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes  # noqa: F401  (registers bfloat16)
import numpy as np
from safetensors.numpy import save_file

from gllm_kernels.model.config import parse_config
from gllm_kernels.model.fields import Fields
from gllm_kernels.model.llama import TINY
from gllm_kernels.model.weights import tensor_shapes

SMALL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 331,
    "hidden_size": 72,
    "intermediate_size": 200,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "max_position_embeddings": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def random_tensors(config: dict[str, object], seed: int = 0) -> dict[str, np.ndarray]:
    """Values of about the size that training leaves; norms near one."""
    rng = np.random.default_rng(seed)
    shapes = tensor_shapes(parse_config(Fields(Path("config.json"), config)))
    return {
        name: (rng.normal(1.0 if len(shape) == 1 else 0.0, 0.1, shape).astype(np.float32))
        for name, shape in shapes.items()
    }


def byte_tokenizer() -> dict[str, object]:
    """One token per byte behind id 0, the end of text; no merges."""
    tiny = json.loads((TINY / "tokenizer.json").read_text())
    from gllm_kernels.model.tokenizer_json import ALPHABET

    vocab = {"<|endoftext|>": 0} | {ALPHABET[byte]: byte + 1 for byte in range(256)}
    return tiny | {"model": tiny["model"] | {"vocab": vocab, "merges": []}}


def write_checkpoint(
    directory: Path,
    tensors: dict[str, np.ndarray] | None = None,
    **changes: object,
) -> Path:
    """A directory with config.json, model.safetensors and tokenizer.json."""
    directory.mkdir(parents=True, exist_ok=True)
    config = SMALL | changes
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
    save_file(
        random_tensors(config) if tensors is None else tensors, directory / "model.safetensors"
    )
    return directory
