r"""Cutting text into the words that BPE works on, by the regular expression of a tokenizer.json.

Those expressions use \p{L}, \p{N} and \s, which Python's `re` does not have or means otherwise.
So each character is first replaced by a stand-in of the same class, one for one, and the expression
is rewritten over the stand-ins; the places where it cuts are then places in the text itself:

    text     H  é  ,  ③  NBSP     ASCII stays itself; other characters become one of four
    shape    H  L  ,  N  S        (L, N, S, O stand for control characters)
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator

LETTER, NUMBER, SPACE, OTHER = "\x01", "\x02", "\x03", "\x04"
LONG_S = "\u017f"  # kept, because (?i:'s) matches it: it folds to "s" (CaseFolding.txt)
# White_Space of PropList.txt; Python's \s has U+001C..U+001F as well
WHITE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
CLASSES = {r"\p{L}": f"a-zA-Z{LONG_S}{LETTER}", r"\p{N}": f"0-9{NUMBER}", r"\s": f"\t-\r {SPACE}"}
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# Letters and numbers of Unicode 15.0 to 16.0, so that Python 3.11 (Unicode 14) cuts text as newer
# Pythons do: first and last of each range, from UnicodeData.txt 16.0.
# fmt: off
LETTERS_SINCE_14 = (
    (0x1C89, 0x1C8A), (0xA7CB, 0xA7CD), (0xA7DA, 0xA7DC), (0x105C0, 0x105F3), (0x10D4A, 0x10D65),
    (0x10D6F, 0x10D85), (0x10EC2, 0x10EC4), (0x1123F, 0x11240), (0x11380, 0x11389),
    (0x1138B, 0x1138B), (0x1138E, 0x1138E), (0x11390, 0x113B5), (0x113B7, 0x113B7),
    (0x113D1, 0x113D1), (0x113D3, 0x113D3), (0x11BC0, 0x11BE0), (0x11F02, 0x11F02),
    (0x11F04, 0x11F10), (0x11F12, 0x11F33), (0x1342F, 0x1342F), (0x13441, 0x13446),
    (0x13460, 0x143FA), (0x16100, 0x1611D), (0x16D40, 0x16D6C), (0x18CFF, 0x18CFF),
    (0x1B132, 0x1B132), (0x1B155, 0x1B155), (0x1DF25, 0x1DF2A), (0x1E030, 0x1E06D),
    (0x1E4D0, 0x1E4EB), (0x1E5D0, 0x1E5ED), (0x1E5F0, 0x1E5F0), (0x2B739, 0x2B739),
    (0x2EBF0, 0x2EE5D), (0x31350, 0x323AF),
)
NUMBERS_SINCE_14 = (
    (0x10D40, 0x10D49), (0x116D0, 0x116E3), (0x11BF0, 0x11BF9), (0x11F50, 0x11F59),
    (0x16130, 0x16139), (0x16D70, 0x16D79), (0x1CCF0, 0x1CCF9), (0x1D2C0, 0x1D2D3),
    (0x1E4F0, 0x1E4F9), (0x1E5F1, 0x1E5FA),
)
# fmt: on


def stand_in(char: str) -> str:
    """The character that represents `char` in a shape."""
    if char < "\x80" or char == LONG_S:
        return OTHER if char < "\t" else char
    if char in WHITE:
        return SPACE
    kind = unicodedata.category(char)
    if kind[0] == "L" or (kind == "Cn" and _within(LETTERS_SINCE_14, ord(char))):
        return LETTER
    if kind[0] == "N" or (kind == "Cn" and _within(NUMBERS_SINCE_14, ord(char))):
        return NUMBER
    return OTHER


def _within(ranges: tuple[tuple[int, int], ...], code: int) -> bool:
    at = bisect_right(ranges, (code, 0x110000)) - 1
    return at >= 0 and code <= ranges[at][1]


class _StandIns(dict[int, str]):
    """A table for str.translate that fills itself."""

    def __missing__(self, code: int) -> str:
        self[code] = stand_in(chr(code))
        return self[code]


_STAND_INS = _StandIns()

_TOKEN = re.compile(r"\\p\{[LN]\}|\\[sSrnt]|\\.|[^\\]", re.DOTALL)
_PLAIN_ESCAPES = (r"\r", r"\n", r"\t")


def over_shapes(pattern: str) -> re.Pattern[str] | None:
    """The expression rewritten over stand-ins, or None when it uses what they do not represent."""
    if not pattern.isascii():
        return None
    parts, bracket = [], False
    for token in _TOKEN.findall(pattern):
        part = _rewrite(token, bracket)
        if part is None:
            return None
        bracket = token == "[" or (bracket and token != "]")
        parts.append(part)
    try:
        return re.compile("".join(parts))
    except re.error:
        return None


def _rewrite(token: str, bracket: bool) -> str | None:
    if token in CLASSES:
        return CLASSES[token] if bracket else f"[{CLASSES[token]}]"
    if token == r"\S" and not bracket:
        return f"[^{CLASSES[chr(92) + 's']}]"
    # inside a bracket "[", "&&" and named classes mean set operations to other engines
    if token[0] == "\\" and token not in _PLAIN_ESCAPES or bracket and token in "[&":
        return None
    return token


def cut(text: str, pattern: re.Pattern[str]) -> Iterator[str]:
    """The matches of `pattern` and what lies between them, in order, nothing lost."""
    shape = text.translate(_STAND_INS)
    end = 0
    for match in pattern.finditer(shape):
        if end < match.start():
            yield text[end : match.start()]
        if match.start() < match.end():
            yield text[match.start() : match.end()]
        end = match.end()
    if end < len(text):
        yield text[end:]
