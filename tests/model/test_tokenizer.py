"""The pure-Python tokenizer against the `tokenizers` package: equal ids on all text."""

import json
import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from checkpoints import byte_tokenizer

from gllm_kernels.errors import FormatError, ShapeError
from gllm_kernels.model.bpe import join
from gllm_kernels.model.fields import Fields
from gllm_kernels.model.llama import TINY
from gllm_kernels.model.split import over_shapes
from gllm_kernels.model.tokenizer import ForeignTokenizer, Tokenizer, load_tokenizer
from gllm_kernels.model.tokenizer_json import parse_tokenizer

tokenizers = pytest.importorskip("tokenizers")

LIBRARY = Path(os.__file__).parent
SOURCES = ["argparse.py", "json/encoder.py", "textwrap.py", "ast.py", "this.py", "heapq.py"]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ASSIGNED = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
COMMON = " \n\t\r'sSdlmtvrek\u017f\x00\x01\x1c\x1f\x85\xa0\u2028\u3000 09aZ.<|/_éßдñ字①🙂\u0301"


@cache
def texts() -> list[str]:
    """Seeded mixtures of any character and of those that decide where words end."""
    rng = random.Random(7)
    some = ["", " ", "  ", "\n", "a", "é", "'S 'ſ it's IT'S", "x" * 3000, " " * 500, "\u0301"]
    for _ in range(1500):
        some.append(
            "".join(
                rng.choice(ASSIGNED if rng.random() < 0.3 else COMMON)
                for _ in range(rng.randint(0, 40))
            )
        )
    return some


def trained(**parts: object) -> dict[str, object]:
    """A tokenizer of 600 tokens learned from the library, with the given parts."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(**parts.pop("model", {})))
    for name, part in parts.items():
        if name not in ("alphabet", "special"):
            setattr(inner, name, part)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=900,
        show_progress=False,
        initial_alphabet=parts.get("alphabet", tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=parts.get("special", ["<|endoftext|>"]),
    )
    inner.train_from_iterator([(LIBRARY / name).read_text() for name in SOURCES[:3]], trainer)
    return json.loads(inner.to_str())


def byte_level(cuts: str | None, **options: object) -> dict[str, object]:
    pre = tokenizers.pre_tokenizers
    steps = [pre.ByteLevel(add_prefix_space=False, **options)]
    if cuts is not None:
        steps = [
            pre.Split(tokenizers.Regex(cuts), "isolated"),
            pre.ByteLevel(False, use_regex=False),
        ]
    return trained(pre_tokenizer=pre.Sequence(steps), decoder=tokenizers.decoders.ByteLevel())


def with_added(made: dict[str, object]) -> dict[str, object]:
    """Added tokens of every kind that is read here."""
    top = max(made["model"]["vocab"].values())
    kinds = [
        {"content": "<a>", "special": True},
        {"content": "<a><b>", "special": False},
        {"content": " <l>", "lstrip": True, "special": False},
        {"content": "<r>", "rstrip": True, "special": True},
        {"content": "<n>", "normalized": True, "special": False},
    ]
    blank = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    rows = [blank | row | {"id": top + 1 + place} for place, row in enumerate(kinds)]
    return made | {"added_tokens": made["added_tokens"] + rows}


def llama2(metaspace: str | None = None) -> dict[str, object]:
    """SentencePiece style: a mark for the space, bytes for unknown characters, BOS in front."""
    n, d = tokenizers.normalizers, tokenizers.decoders
    parts = {"normalizer": n.Sequence([n.Prepend("▁"), n.Replace(" ", "▁")])}
    if metaspace is not None:
        parts = {
            "pre_tokenizer": tokenizers.pre_tokenizers.Metaspace(
                "▁", prepend_scheme=metaspace, split=metaspace != "first"
            )
        }
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    made = trained(
        model={"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True},
        decoder=d.Sequence([d.Replace("▁", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 0)]),
        post_processor=tokenizers.processors.TemplateProcessing("<s> $A", None, [("<s>", 1)]),
        alphabet=["▁"],
        special=special,
        # words end at spaces while learning, or every file would be one word
        **({} if metaspace else {"pre_tokenizer": tokenizers.pre_tokenizers.Metaspace("▁")}),
        **{name: part for name, part in parts.items() if name != "normalizer" or metaspace is None},
    )
    made["added_tokens"] = made["added_tokens"][:3]
    return made | ({} if metaspace else {"pre_tokenizer": None})


# fmt: off
KINDS = {
    "tiny":            lambda: json.loads((TINY / "tokenizer.json").read_text()),
    "bytes only":      byte_tokenizer,
    "prefix space":    lambda: trained(pre_tokenizer=tokenizers.pre_tokenizers.ByteLevel(True),
                                       decoder=tokenizers.decoders.ByteLevel()),
    "llama 3":         lambda: byte_level(LLAMA3),
    "whole words":     lambda: change(byte_level(LLAMA3), ("model", "ignore_merges"), True),
    "digits":          lambda: trained(decoder=tokenizers.decoders.ByteLevel(),
                                       pre_tokenizer=tokenizers.pre_tokenizers.Sequence([
                                           tokenizers.pre_tokenizers.Digits(True),
                                           tokenizers.pre_tokenizers.ByteLevel(False)])),
    "added":           lambda: with_added(byte_level(None)),
    "llama 2":         llama2,
    "llama 2 added":   lambda: with_added(llama2()),
    "metaspace first": lambda: llama2("first"),
    "metaspace always": lambda: with_added(llama2("always")),
    "metaspace never": lambda: llama2("never"),
}
# fmt: on


@cache
def made(kind: str) -> dict[str, object]:
    return KINDS[kind]()


def both(values: dict[str, object]) -> tuple[Tokenizer, object]:
    ours = parse_tokenizer(Fields(Path("tokenizer.json"), values))
    return ours, tokenizers.Tokenizer.from_str(json.dumps(values))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_ids_on_random_unicode(kind: str) -> None:
    ours, theirs = both(made(kind))
    rng = random.Random(3)
    marks = ["<a>", "<a><b>", " <l>", "<r>  ", "<n>", "<|endoftext|>", "<s>"]
    for text in texts():
        if rng.random() < 0.3:
            cut = rng.randint(0, len(text))
            text = text[:cut] + rng.choice(marks) * rng.randint(1, 2) + text[cut:]
        for special in (True, False):
            wanted = theirs.encode(text, add_special_tokens=special).ids
            assert ours.encode(text, special) == wanted, ascii(text)
        assert ours.decode(wanted) == theirs.decode(wanted), ascii(text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SOURCES)
def test_equal_ids_on_python_files(kind: str, name: str) -> None:
    ours, theirs = both(made(kind))
    text = (LIBRARY / name).read_text()
    ids = ours.encode(text)
    assert ids == theirs.encode(text).ids
    assert ours.decode(ids) == theirs.decode(ids)


def test_random_ids_decode_alike() -> None:
    ours, theirs = both(made("tiny"))
    rng = random.Random(4)
    for _ in range(500):
        ids = [rng.randrange(len(ours.pieces)) for _ in range(rng.randint(0, 30))]
        assert ours.decode(ids) == theirs.decode(ids)


@pytest.mark.parametrize("kind", ["tiny", "bytes only", "llama 2"])
def test_streaming_gives_whole_characters_and_the_same_text(kind: str) -> None:
    ours, _ = both(made(kind))
    text = "naïve 🙂 字 x = 'é'\n"
    ids = ours.encode(text, special=False)
    stream = ours.stream()
    pieces = [stream.push(id) for id in ids]
    assert len(ids) > len(text) / 2 and "\ufffd" not in "".join(pieces)
    assert "".join(pieces).lstrip(" ") == text and stream.end() == ""


def test_a_text_cut_inside_a_character_ends_with_a_replacement() -> None:
    ours, _ = both(byte_tokenizer())
    stream = ours.stream()
    assert [stream.push(id) for id in ours.encode("🙂")[:3]] == ["", "", ""]
    assert stream.end() == "\ufffd"


def test_every_character_is_classed_alike() -> None:
    """Word ends around each character: letters, numbers, spaces, others."""
    ours, theirs = both(byte_tokenizer())
    split = theirs.pre_tokenizer
    # nothing is assigned between U+323B0 and the tags of plane 14: a sample of it is enough
    chars = ASSIGNED[:0x32400] + ASSIGNED[0x32400::61]
    for start in range(0, len(chars), 4096):
        text = "".join(f"a{c}1" for c in chars[start : start + 4096])
        wanted = [word for word, _ in split.pre_tokenize_str(text)]
        assert list(ours.split(text, True)) == wanted, hex(ord(chars[start]))


def test_joining_takes_the_lowest_rank_and_of_equals_the_leftmost() -> None:
    merges = {(1, 1): (0, 2), (2, 1): (1, 3), (2, 2): (2, 4)}
    assert join([1] * 5, merges) == [2, 3]
    assert join([1] * 4, merges) == [4]
    assert join([], merges) == [] and join([1], merges) == [1]


def test_a_long_word_is_no_quadratic_trap() -> None:
    ours, _ = both(made("tiny"))
    steps = []

    class Counting(dict):
        def get(self, key: object, default: object = None) -> object:
            steps.append(key)
            return super().get(key, default)

    count = 20_000
    join(ours.bpe.symbols("=" * count), Counting(ours.bpe.merges))
    assert len(steps) < 8 * count


@pytest.mark.parametrize(
    "pattern", [r"\p{Lu}+", r"\w+", r"\bx", "é+", r"[a-z&&[^b]]", r"[^\S]", "(", r"\x41"]
)
def test_expressions_beyond_the_stand_ins_are_not_read_here(pattern: str) -> None:
    assert over_shapes(pattern) is None


def test_other_kinds_go_to_the_tokenizers_package(tmp_path: Path) -> None:
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "?": 2}, "?"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.enable_truncation(1)
    inner.save(str(tmp_path / "tokenizer.json"))
    found = load_tokenizer(tmp_path)
    assert isinstance(found, ForeignTokenizer)
    assert found.encode("a b z") == [0, 1, 2]
    stream = found.stream()
    assert "".join([stream.push(0), stream.push(1), stream.end()]) == found.decode([0, 1]) == "a b"
    code = (
        "import sys; sys.modules['tokenizers'] = None\n"
        "from pathlib import Path\n"
        "from gllm_kernels.model.tokenizer import load_tokenizer\n"
        f"load_tokenizer(Path({str(tmp_path)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "FormatError" in done.stderr and "gllm-kernels[hf]" in done.stderr


def change(values: object, path: tuple[object, ...], value: object) -> object:
    if not path:
        return value
    copy = dict(values) if isinstance(values, dict) else list(values)
    copy[path[0]] = change(copy[path[0]], path[1:], value)
    return copy


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("model",), None, "model"),
        (("model", "vocab"), {"a": -1}, "model.vocab.a is -1"),
        (("model", "vocab"), {"a": 1, "b": 1}, "one id"),
        (("model", "merges"), [["a"]], "merges[0]"),
        (("model", "merges"), ["a b c"], "merges[0]"),
        (("model", "merges"), [["a", "nosuchtoken"]], "nosuchtoken"),
        (("model", "merges"), 3, "model.merges"),
        (("model", "unk_token"), "nosuchtoken", "unk_token"),
        (("added_tokens", 0), 3, "added_tokens"),
        (("added_tokens", 0, "id"), 5, "added_tokens[0].id is 5"),
        (("added_tokens", 0, "content"), None, "added_tokens[0].content"),
        (("decoder", "type"), 7, "decoder.type"),
    ],
)
def test_hostile_files(tmp_path: Path, path: tuple[object, ...], value: object, words: str) -> None:
    values = change(made("tiny"), path, value)
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(FormatError) as caught:
        load_tokenizer(tmp_path)
    assert words in str(caught.value) and str(tmp_path) in str(caught.value)


def test_mutated_files_load_or_are_refused(tmp_path: Path) -> None:
    whole = json.dumps(byte_tokenizer()).encode()
    rng = random.Random(13)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(3):
            data[rng.randrange(len(data))] = rng.choice(b'0{}[]",:ax\xff')
        (tmp_path / "tokenizer.json").write_bytes(data)
        try:
            load_tokenizer(tmp_path).encode("x = 1")
        except FormatError:
            refused += 1
    assert refused > 200


def test_arguments() -> None:
    ours, _ = both(byte_tokenizer())
    with pytest.raises(ShapeError, match="lone surrogate '.ud800'"):
        ours.encode("ab\ud800")
    with pytest.raises(ShapeError, match="token id 257: .* 0 to 256"):
        ours.decode([257])
    with pytest.raises(ShapeError, match="token id -1"):
        ours.decode([-1])
