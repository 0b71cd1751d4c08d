"""SentencePiece vocabularies as GGUF files carry them, against the definition by search."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from gllm_kernels.errors import FormatError
from gllm_kernels.model.fields import Fields
from gllm_kernels.model.gguf_tokenizer import BYTE, CONTROL, KEY, MARK, NORMAL, UNKNOWN, parse_gguf_tokenizer
from gllm_kernels.model.tokenizer import Tokenizer

WORDS = ["the", "there", "then", "ten", "net", "ether", "he", "er", "re", "th", "en", "e" * 4, "ee", "eee", "rr",
         f"{MARK}t", f"{MARK}the", f"{MARK}{MARK}", f"{MARK}he", f"t{MARK}"]


def vocabulary(seed: int) -> tuple[list[str], list[float], list[int]]:
    """<unk>, <s>, </s>, the bytes, letters, words: scores in random order, some equal."""
    rng = random.Random(seed)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *sorted({*"hertn", MARK}), *WORDS]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256]
    kinds += [NORMAL] * (len(tokens) - len(kinds))
    return tokens, [float(-rng.randrange(12)) for _ in tokens], kinds


def fields(seed: int = 0, **changes: object) -> Fields:
    tokens, scores, kinds = vocabulary(seed)
    values = {"model": "llama", "tokens": tokens, "scores": scores, "token_type": kinds} | changes
    return Fields(Path("x.gguf"), {KEY + name: of for name, of in values.items()})


def by_search(text: str, seed: int) -> list[int]:
    """Join the best-scored adjacent pair, leftmost of equals, until none makes a token."""
    tokens, scores, kinds = vocabulary(seed)
    ids = {token: id for id, token in enumerate(tokens) if kinds[id] == NORMAL}
    parts = list(MARK + text.replace(" ", MARK))
    while True:
        pairs = [(-scores[ids[a + b]], at) for at, (a, b) in enumerate(zip(parts, parts[1:])) if a + b in ids]
        if not pairs:
            break
        at = min(pairs)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [id for part in parts for id in ([ids[part]] if part in ids else [3 + b for b in part.encode()])]


@pytest.mark.parametrize("seed", range(20))
def test_the_best_pair_is_joined_first(seed: int) -> None:
    tokenizer, rng = parse_gguf_tokenizer(fields(seed)), random.Random(seed)
    assert isinstance(tokenizer, Tokenizer)
    for _ in range(50):
        text = "".join(rng.choice("heertn  \u00e9\u2462") for _ in range(rng.randrange(1, 30)))
        assert tokenizer.encode(text, special=False) == by_search(text, seed)
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_what_stands_around_a_text() -> None:
    assert parse_gguf_tokenizer(fields()).encode("") == [1]
    both = parse_gguf_tokenizer(fields(add_eos_token=True, bos_token_id=2, eos_token_id=1))
    assert (both.encode("")[0], both.encode("")[-1]) == (2, 1)
    assert parse_gguf_tokenizer(fields(add_bos_token=False)).encode("") == []


def test_control_tokens_are_found_and_not_shown() -> None:
    tokenizer = parse_gguf_tokenizer(fields())
    ids = tokenizer.encode("the</s>the", special=False)
    assert 2 in ids and tokenizer.decode(ids) == "the the"  # a space before each stretch of text
    plain = parse_gguf_tokenizer(fields(add_space_prefix=False))
    assert plain.decode(plain.encode("the</s>the")) == "thethe"


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"tokens": [1, 2]}, "expected strings"), ({"scores": [0.0]}, "numbers"),
     ({"bos_token_id": 9999}, "from 0 to"), ({"add_bos_token": 1}, "true or false"),
     ({"tokens": []}, "expected strings"), ({"model": 3}, "expected a string")],
)
def test_wrong_vocabularies_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(FormatError, match=words):
        parse_gguf_tokenizer(fields(**changes))
