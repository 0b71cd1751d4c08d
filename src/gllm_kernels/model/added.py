"""Added tokens: strings that are one token wherever they stand, such as <|endoftext|>."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from .split import WHITE


@dataclass(frozen=True, slots=True)
class AddedToken:
    id: int
    content: str
    lstrip: bool  # swallows white space on its left
    rstrip: bool
    normalized: bool  # looked for after normalising, otherwise in the text as given
    special: bool  # not shown when decoding


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of text, or a token found in it; `first` when nothing stands before it."""

    text: str
    token: AddedToken | None
    first: bool


@dataclass(frozen=True, slots=True)
class Finder:
    """Finds added tokens: leftmost first, and of those at one place the longest."""

    pattern: re.Pattern[str] | None
    tokens: Mapping[str, AddedToken]

    @staticmethod
    def of(rows: Iterable[tuple[str, AddedToken]]) -> Finder:
        tokens = {text: token for text, token in rows if text}
        longest_first = sorted(tokens, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first))
        return Finder(re.compile(pattern) if pattern else None, tokens)

    def spans(self, text: str, first: bool = True) -> Iterator[Span]:
        """`text` cut at the added tokens; empty stretches are left out."""
        end = 0
        for match in self.pattern.finditer(text) if self.pattern else ():
            token = self.tokens[match.group()]
            start, stop = match.span()
            if token.lstrip:
                start = end + len(text[end:start].rstrip(WHITE))
            if token.rstrip:
                stop = _RIGHT.match(text, stop).end()  # type: ignore[union-attr]  # matches always
            if end < start:
                yield Span(text[end:start], None, first and end == 0)
            yield Span(text[start:stop], token, first and start == 0)
            end = stop
        if end < len(text):
            yield Span(text[end:], None, first and end == 0)


_RIGHT = re.compile(f"[{WHITE}]*")
