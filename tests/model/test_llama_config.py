"""config.json: what is read, and what is refused by file, field, value and remedy."""

import json
from pathlib import Path

import pytest
from checkpoints import SMALL

from gllm_kernels.errors import FormatError
from gllm_kernels.model.config import LlamaConfig, load_config, parse_config
from gllm_kernels.model.fields import Fields
from gllm_kernels.model.llama import TINY


def parse(**changes: object) -> LlamaConfig:
    values = {k: v for k, v in (SMALL | changes).items() if v is not ...}
    return parse_config(Fields(Path("some/config.json"), values))


def test_fields() -> None:
    config = parse(eos_token_id=[2, 3])
    assert (config.heads, config.kv_heads, config.head_dim, config.group) == (6, 3, 12, 2)
    assert (config.ffn_size, config.context, config.rms_eps) == (200, 128, 1e-5)
    assert config.eos == {2, 3} and not config.tied
    assert config.kv_bytes_per_token == 2 * 4 * 2 * 3 * 12


def test_defaults_of_missing_fields() -> None:
    config = parse(num_key_value_heads=..., rope_theta=..., eos_token_id=..., head_dim=None)
    assert config.kv_heads == config.heads
    assert config.rope_theta == 10000.0
    assert config.eos == frozenset()


@pytest.mark.parametrize(
    "table",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rope_theta": ...},
        {"rope_scaling": {"type": "default"}, "rope_theta": 5e5},
        {"rope_scaling": {"rope_type": "default"}, "rope_theta": 500000},
    ],
)
def test_rope_theta_in_any_place(table: dict[str, object]) -> None:
    assert parse(**table).rope_theta == 5e5


@pytest.mark.parametrize(
    ("changes", "field", "value", "remedy"),
    [
        (
            {"architectures": ["GPT2LMHeadModel"]},
            "architectures",
            "GPT2LMHeadModel",
            "LlamaForCausalLM",
        ),
        ({"architectures": ..., "model_type": "mamba"}, "model_type", "mamba", "LlamaForCausalLM"),
        ({"architectures": []}, "architectures", "[]", "LlamaForCausalLM"),
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
            "rope_type",
            "llama3",
            "default",
        ),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling.type", "linear", "default"),
        ({"rope_scaling": [1]}, "rope_scaling", "[1]", "object"),
        (
            {"rope_parameters": {"rope_type": "yarn"}},
            "rope_parameters.rope_type",
            "yarn",
            "default",
        ),
        ({"hidden_act": "gelu"}, "hidden_act", "gelu", "silu"),
        ({"attention_bias": True}, "attention_bias", "true", "without"),
        ({"mlp_bias": True}, "mlp_bias", "true", "without"),
        ({"quantization_config": {"bits": 4}}, "quantization_config", "bits", "bf16"),
        ({"hidden_size": ...}, "hidden_size", "missing", "integer"),
        ({"hidden_size": "72"}, "hidden_size", '"72"', "integer"),
        ({"hidden_size": -1}, "hidden_size", "-1", "from 1"),
        ({"hidden_size": 1 << 40}, "hidden_size", str(1 << 40), "from 1 to"),
        ({"num_hidden_layers": True}, "num_hidden_layers", "true", "integer"),
        ({"num_key_value_heads": 4}, "num_key_value_heads", "4", "divide"),
        ({"num_key_value_heads": 7}, "num_key_value_heads", "7", "from 1 to 6"),
        ({"num_attention_heads": 7}, "num_attention_heads", "7", "divide"),
        ({"head_dim": 11}, "head_dim", "11", "even"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps", "-1", "number"),
        ({"rope_theta": 0}, "rope_theta", "0", "number"),
        ({"eos_token_id": 331}, "eos_token_id", "331", "to 330"),
        ({"eos_token_id": [1, "2"]}, "eos_token_id", '"2"', "token ids"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings", "1", "true or false"),
    ],
)
def test_refusals_name_field_value_and_remedy(
    changes: dict[str, object], field: str, value: str, remedy: str
) -> None:
    with pytest.raises(FormatError) as caught:
        parse(**changes)
    message = str(caught.value)
    assert message.startswith("some/config.json: ")
    assert field in message and value in message and remedy in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not valid JSON"),
        (b"[]", "expected a JSON object"),
        (b'{"a": 1, "a": 2}', "occurs twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_broken_json(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(FormatError, match=words) as caught:
        load_config(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)


def test_places_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such directory.*safetensors"):
        load_config(tmp_path / "absent")
    with pytest.raises(FormatError, match="no such file"):
        load_config(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FormatError, match="is a file; give a .gguf file, or the directory"):
        load_config(tmp_path / "file")


def test_generation_config_adds_ends_of_text(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    assert load_config(tmp_path).eos == {0, 7, 9}


def test_the_packaged_model_is_readable() -> None:
    config = load_config(TINY)
    assert config.tied and config.group == 2
