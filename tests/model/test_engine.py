"""The compiled engine against transformers' LlamaForCausalLM, and against plain numpy."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import reference
from checkpoints import SMALL, random_tensors, write_checkpoint

from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.config import config
from gllm_kernels.model.llama import TINY, Llama

HEADS = [(4, 4), (4, 2), (4, 1)]  # grouped-query attention in groups of 1, 2 and 4
LIMIT = 1e-3


def model(path: Path, heads: tuple[int, int], tied: bool, dtype: type = np.float32) -> Path:
    changes = {
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "tie_word_embeddings": tied,
    }
    tensors = {name: v.astype(dtype) for name, v in random_tensors(SMALL | changes).items()}
    return write_checkpoint(path, tensors, **changes)


def logits_then_steps(llm: Llama, tokens: list[int], length: int) -> np.ndarray:
    """All rows of the prompt at once, then the rest one token at a time."""
    rows = [*llm.logits(tokens[:length])]
    llm.reset()
    llm.eval(tokens[:length])
    return np.array(rows + [llm.eval([token]) for token in tokens[length:]])


@pytest.mark.parametrize("length", [1, 7, 64])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("heads", HEADS)
def test_prompt_and_decode_equal_transformers(
    tmp_path: Path, heads: tuple[int, int], tied: bool, length: int
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    same_as_transformers(model(tmp_path, heads, tied), length)


@pytest.mark.parametrize("isa", [isa.name for isa in host_isas()] + ["scalar"])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_weights_are_read_as_they_are_stored(tmp_path: Path, dtype: type, isa: str) -> None:
    """Widening is exact, so the limit is that of float32 weights."""
    pytest.importorskip("transformers")
    with config(isa=isa):
        same_as_transformers(model(tmp_path, (6, 3), False, dtype), 40)
        weights = Llama(tmp_path)._engine.weights
    assert {a.dtype for a in (weights.embed, weights.head, weights.layers[1].wq)} == {np.dtype(dtype)}


def same_as_transformers(path: Path, length: int) -> None:
    import torch
    import transformers

    tokens = np.random.default_rng(length).integers(0, 331, length + 20).tolist()
    theirs = transformers.LlamaForCausalLM.from_pretrained(str(path), dtype=torch.float32)
    with torch.no_grad():
        wanted = theirs(torch.tensor([tokens])).logits[0].numpy()
    found = logits_then_steps(Llama(path), tokens, length)
    np.testing.assert_allclose(found, wanted, atol=LIMIT)


@pytest.mark.parametrize("heads", HEADS)
def test_prompt_and_decode_equal_the_reference(tmp_path: Path, heads: tuple[int, int]) -> None:
    path = model(tmp_path, heads, tied=False)
    tokens = np.random.default_rng(5).integers(0, 331, 50).tolist()
    wanted = logits_then_steps(Llama(path, build=reference.build), tokens, 30)
    np.testing.assert_allclose(logits_then_steps(Llama(path), tokens, 30), wanted, atol=LIMIT)


def test_the_packaged_model_equals_the_reference() -> None:
    ours, plain = Llama(TINY), Llama(TINY, build=reference.build)
    tokens = ours.tokenize("import os\n\n\nclass Stack:\n    def __init__(self, size=0):\n")
    np.testing.assert_allclose(ours.logits(tokens), plain.logits(tokens), atol=LIMIT)


def test_threads_and_chunks_keep_the_bits() -> None:
    tokens = list(range(5, 105))
    wanted = Llama(TINY, n_threads=1).logits(tokens)
    assert np.array_equal(Llama(TINY, n_threads=2).logits(tokens), wanted)
    assert np.abs(Llama(TINY, n_batch=32).logits(tokens) - wanted).max() < LIMIT
