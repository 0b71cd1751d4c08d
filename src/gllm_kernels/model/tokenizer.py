"""Text <-> token ids, by the checkpoint's own tokenizer.json, in pure Python.

    text -> added tokens -> normalise -> split into words -> BPE -> ids
    ids  -> bytes of each token -> UTF-8 -> text

Byte-level BPE (GPT-2, Llama 3) and SentencePiece-style BPE (Llama 2) are read here. Any other kind
goes to the `tokenizers` package where that is installed.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from ..errors import FormatError, ShapeError
from .added import Finder, Span
from .bpe import Bpe
from .fields import read_object

Normalise = Callable[[str], str]
Split = Callable[[str, bool], Iterable[str]]  # (text, whether nothing stands before it) -> words


class TextStream(Protocol):
    """Text of tokens that come one by one."""

    def push(self, id: int) -> str:
        """The characters that `id` completes: a character may span several tokens."""

    def end(self) -> str:
        """What was still incomplete, as U+FFFD."""


class Tokens(Protocol):
    """What a model needs of a tokenizer."""

    def encode(self, text: str, special: bool = True) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def stream(self) -> TextStream: ...


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A tokenizer.json as data. `pieces[id]` is what a token stands for; None is not shown."""

    raw_added: Finder
    normalised_added: Finder
    normalise: Normalise
    split: Split
    bpe: Bpe
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    pieces: tuple[bytes | None, ...]
    strip: int  # spaces that decoding takes off the front

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Ids of the text; `special` adds what the checkpoint puts around it, such as BOS."""
        check_text(text)
        ids = list(self.prefix) if special else []
        for span in self._spans(text):
            if span.token is not None:
                ids.append(span.token.id)
            else:
                for word in self.split(span.text, span.first):
                    ids += self.bpe.encode(word)
        return ids + list(self.suffix) if special else ids

    def _spans(self, text: str) -> Iterator[Span]:
        for span in self.raw_added.spans(text):
            if span.token is not None:
                yield span
            else:
                yield from self.normalised_added.spans(self.normalise(span.text), span.first)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; special tokens are left out, broken UTF-8 becomes U+FFFD."""
        for id in ids:
            if not 0 <= id < len(self.pieces):
                last = len(self.pieces) - 1
                raise ShapeError(f"token id {id}: the tokenizer has ids 0 to {last}")
        stream = self.stream()
        text = "".join([stream.push(int(id)) for id in ids]) + stream.end()
        return text[_spaces(text, self.strip) :]

    def stream(self) -> TextStream:
        return Utf8Stream(self.pieces)


def _spaces(text: str, most: int) -> int:
    head = text[:most]
    return len(head) - len(head.lstrip(" "))


class Utf8Stream:
    """Decodes UTF-8 across token boundaries."""

    def __init__(self, pieces: Sequence[bytes | None]) -> None:
        self._pieces = pieces
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def push(self, id: int) -> str:
        # a model's vocabulary is often padded beyond its tokenizer's: such ids have no text
        return self._decode((self._pieces[id] if id < len(self._pieces) else None) or b"")

    def end(self) -> str:
        return self._decode(b"", True)


def check_text(text: str) -> None:
    """Text must be str and have UTF-8: half a surrogate pair has none."""
    if not isinstance(text, str):
        raise ShapeError(f"text={text!r}: expected str, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ShapeError(
            f"text: character {error.start} is the lone surrogate {text[error.start]!a}, "
            "which UTF-8 cannot express; decode the input as UTF-8"
        ) from None


def load_tokenizer(directory: Path) -> Tokens:
    """`directory/tokenizer.json`, read here or, for kinds unknown here, by `tokenizers`."""
    from .tokenizer_json import Unfamiliar, parse_tokenizer

    path = directory / "tokenizer.json"
    fields = read_object(path)
    try:
        return parse_tokenizer(fields)
    except Unfamiliar as unfamiliar:
        return load_foreign(path, str(unfamiliar))


def load_foreign(path: Path, what: str) -> Tokens:
    try:
        import tokenizers
    except ImportError:
        raise FormatError(
            f"{path}: {what} is read by the tokenizers package: pip install 'gllm-kernels[hf]'"
        ) from None
    try:
        inner = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exception
        raise FormatError(f"{path}: {error}") from None
    inner.no_truncation()
    inner.no_padding()
    return ForeignTokenizer(inner)


class ForeignTokenizer:
    """A `tokenizers.Tokenizer` behind the same interface."""

    def __init__(self, inner: object) -> None:
        self._inner = inner

    def encode(self, text: str, special: bool = True) -> list[int]:
        check_text(text)
        return list(self._inner.encode(text, add_special_tokens=special).ids)  # type: ignore[attr-defined]

    def decode(self, ids: Sequence[int]) -> str:
        wrong = next((id for id in ids if not 0 <= id < 1 << 32), None)
        if wrong is not None:  # the package counts in 32 bits
            raise ShapeError(f"token id {wrong}: expected 0 to {(1 << 32) - 1}")
        return self._inner.decode([int(id) for id in ids])  # type: ignore[attr-defined]

    def stream(self) -> TextStream:
        return ForeignStream(self._inner)


class ForeignStream:
    def __init__(self, inner: object) -> None:
        from tokenizers.decoders import DecodeStream

        self._step = partial(DecodeStream(skip_special_tokens=True).step, inner)

    def push(self, id: int) -> str:
        return self._step(id) or ""

    def end(self) -> str:
        return ""
