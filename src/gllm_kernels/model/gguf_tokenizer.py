"""The tokenizer that a GGUF file carries in its metadata -> `Tokenizer`.

`llama` is SentencePiece: the pair whose joined token has the best score is joined first. `gpt2` is
byte-level BPE with merges, and `tokenizer.ggml.pre` names the expression that cuts the text first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..errors import FormatError
from .added import AddedToken, Finder
from .bpe import Bpe
from .fields import Fields, shown
from .split import GPT2, cut, over_shapes
from .tokenizer import Tokenizer
from .tokenizer_json import ALPHABET, alphabet_bytes, one_word

KEY = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)  # token_type
MARK = "\u2581"  # SentencePiece writes a space so
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")


@dataclass(frozen=True, slots=True)
class Pre:
    """How text is cut: expressions applied one after the other. `whole_words`: a word that is a token stays whole."""

    cuts: tuple[str, ...]
    whole_words: bool = False
    bos: bool = False  # put in front unless the file says otherwise


_LLAMA3 = Pre((LLAMA3,), whole_words=True, bos=True)
# fmt: off
PRES = {  # tokenizer.ggml.pre
    "llama-bpe": _LLAMA3, "llama3": _LLAMA3, "llama-v3": _LLAMA3, "falcon3": _LLAMA3, "pixtral": _LLAMA3,
    "gpt-2": Pre((GPT2,)), "smollm": Pre((r"\p{N}", GPT2)), "qwen2": Pre((QWEN2,)),
}
# fmt: on


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of the file with their kinds."""

    fields: Fields
    tokens: Sequence[str]
    kinds: Sequence[int]

    def ids(self, *kinds: int) -> list[int]:
        return [id for id, kind in enumerate(self.kinds) if kind in kinds]

    def by_text(self) -> dict[str, int]:
        """Ids by text; of two tokens with one text the later counts."""
        return {text: id for id, text in enumerate(self.tokens)}

    def added(self) -> Finder:
        """Tokens that are found in the text as they stand, before anything else."""
        rows = ((self.tokens[id], AddedToken(id, self.tokens[id], False, False, False, False))
                for id in self.ids(CONTROL, USER))
        return Finder.of(rows)

    def id(self, name: str, default: int | None = None) -> int | None:
        if self.fields.get(KEY + name) is None:
            return default if default is not None and default < len(self.tokens) else None
        return self.fields.integer(KEY + name, 0, len(self.tokens) - 1)

    def around(self, bos: bool, default_bos: int | None, default_eos: int | None) -> tuple:
        """Ids in front of and behind a text."""
        wanted = self.fields.flag(KEY + "add_bos_token", bos), self.fields.flag(KEY + "add_eos_token", False)
        ids = self.id("bos_token_id", default_bos), self.id("eos_token_id", default_eos)
        return tuple((id,) if want and id is not None else () for want, id in zip(wanted, ids))


def read_vocabulary(fields: Fields) -> Vocabulary:
    tokens = fields.array(KEY + "tokens")
    if not tokens or type(tokens[0]) is not str:
        raise FormatError(f"{fields.path}: {KEY}tokens: expected strings")
    kinds = fields.array(KEY + "token_type") if fields.get(KEY + "token_type") is not None else [NORMAL] * len(tokens)
    if len(kinds) != len(tokens) or type(kinds[0]) is not int:
        raise FormatError(f"{fields.path}: {KEY}token_type: expected {len(tokens)} integers")
    return Vocabulary(fields, tokens, kinds)


def parse_gguf_tokenizer(fields: Fields) -> Tokenizer:
    kind = fields.text(KEY + "model")
    if kind not in KINDS:
        fields.refuse(KEY + "model", f"tokenizers read here: {', '.join(KINDS)}")
    return KINDS[kind](read_vocabulary(fields))


# --- gpt2 ---------------------------------------------------------------------------------------


def byte_level(vocabulary: Vocabulary) -> Tokenizer:
    fields = vocabulary.fields
    pre = PRES.get(fields.text(KEY + "pre", ""))
    if pre is None:
        fields.refuse(KEY + "pre", f"known here: {', '.join(PRES)}")
    by_text = vocabulary.by_text()
    prefix, suffix = vocabulary.around(pre.bos, None, None)
    plain = {NORMAL: alphabet_bytes, USER: str.encode}
    return Tokenizer(
        raw_added=vocabulary.added(),
        normalised_added=Finder.of(()),
        normalise=str,
        split=partial(cut_bytes, [over_shapes(text) for text in pre.cuts]),
        bpe=Bpe(by_text, read_merges(fields, by_text), whole_words=pre.whole_words),
        prefix=prefix,
        suffix=suffix,
        pieces=pieces(vocabulary, plain),
        strip=0,
    )


def cut_bytes(patterns: Sequence[re.Pattern[str]], text: str, first: bool) -> Iterable[str]:
    words: Iterable[str] = (text,)
    for pattern in patterns:
        words = [part for word in words for part in cut(word, pattern)]
    return (word.encode().decode("latin-1").translate(ALPHABET) for word in words)


def read_merges(fields: Fields, vocab: Mapping[str, int]) -> dict[tuple[int, int], tuple[int, int]]:
    """Rank = place in the list; a merge is "left right"."""
    merges = {}
    for rank, row in enumerate(fields.array(KEY + "merges")):
        left, _, right = row.partition(" ") if type(row) is str else ("", "", "")
        if not left or not right or not {left, right, left + right} <= vocab.keys():
            raise FormatError(f"{fields.path}: {KEY}merges[{rank}] is {shown(row)}; expected two tokens "
                              "that make a third")
        merges[vocab[left], vocab[right]] = rank, vocab[left + right]
    return merges


# --- llama --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScoredMerges(Mapping[tuple[int, int], tuple[float, int]]):
    """Any two tokens whose texts join to a token; the best score ranks first."""

    tokens: Sequence[str]
    scores: Sequence[float]
    by_text: Mapping[str, int]
    known: dict[tuple[int, int], tuple[float, int] | None] = field(default_factory=dict, compare=False)

    def __getitem__(self, pair: tuple[int, int]) -> tuple[float, int]:
        if pair not in self.known:
            joined = self.by_text.get(self.tokens[pair[0]] + self.tokens[pair[1]])
            self.known[pair] = None if joined is None else (-self.scores[joined], joined)
        found = self.known[pair]
        if found is None:
            raise KeyError(pair)
        return found

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


def sentence_piece(vocabulary: Vocabulary) -> Tokenizer:
    fields, count = vocabulary.fields, len(vocabulary.tokens)
    scores = fields.array(KEY + "scores")
    if len(scores) != count or type(scores[0]) is not float:
        raise FormatError(f"{fields.path}: {KEY}scores: expected {count} numbers")
    joins = {vocabulary.tokens[id]: id for id in vocabulary.ids(NORMAL, USER, UNUSED)}
    space = MARK if fields.flag(KEY + "add_space_prefix", True) else ""
    prefix, suffix = vocabulary.around(True, 1, 2)
    plain: Mapping[int, Callable[[str], bytes]] = {
        NORMAL: lambda text: text.replace(MARK, " ").encode(),
        USER: lambda text: text.replace(MARK, " ").encode(), BYTE: byte_of,
    }
    return Tokenizer(
        raw_added=vocabulary.added(),
        normalised_added=Finder.of(()),
        normalise=lambda text: space + text.replace(" ", MARK),
        split=one_word,
        bpe=Bpe(joins, ScoredMerges(vocabulary.tokens, scores, joins), bytes=byte_ids(vocabulary),
                unknown=vocabulary.id("unknown_token_id", 0)),
        prefix=prefix,
        suffix=suffix,
        pieces=pieces(vocabulary, plain),
        strip=len(space),
    )


def byte_of(text: str) -> bytes:
    return bytes([int(text[3:5], 16)]) if re.fullmatch("<0x[0-9A-Fa-f]{2}>", text) else text.encode()


def byte_ids(vocabulary: Vocabulary) -> tuple[int, ...] | None:
    """The ids of <0x00> to <0xFF>, if the file has them all."""
    by_text = {vocabulary.tokens[id]: id for id in vocabulary.ids(BYTE)}
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    return tuple(by_text[name] for name in names) if by_text.keys() >= set(names) else None


def pieces(vocabulary: Vocabulary, plain: Mapping[int, Callable[[str], bytes]]) -> tuple[bytes | None, ...]:
    """What each token shows; tokens of other kinds than those of `plain` show nothing."""
    return tuple(plain[kind](text) if kind in plain else None
                 for text, kind in zip(vocabulary.tokens, vocabulary.kinds))


KINDS: Mapping[str, Callable[[Vocabulary], Tokenizer]] = {"llama": sentence_piece, "gpt2": byte_level}
