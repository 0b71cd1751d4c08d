"""tokenizer.json -> `Tokenizer`: one row per kind of part, and `Unfamiliar` for any other kind.

Layout: https://huggingface.co/docs/tokenizers; each row does what that library does for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from ..errors import FormatError
from .added import AddedToken, Finder
from .bpe import Bpe, Merges
from .fields import Fields, shown
from .split import GPT2, cut, over_shapes
from .tokenizer import Normalise, Split, Tokenizer

MAX_TOKENS = 1 << 22
Process = tuple[tuple[int, ...], tuple[int, ...]]  # ids before and behind the text
Pieces = tuple[Callable[[str], bytes], int]  # bytes of a token, spaces to strip from the front
Part = TypeVar("Part")
Rows = Mapping[str, Callable[[Fields], Part]]  # type of a part -> what makes it


class Unfamiliar(Exception):
    """A kind of part that is not read here; the text names it."""


def parse_tokenizer(fields: Fields) -> Tokenizer:
    model = fields.nested("model")
    vocab = read_vocab(model)
    added = read_added(fields, vocab)
    normalise = read_part(fields, "normalizer", NORMALISERS, lambda text: text)
    sought = [(normalise(row.content) if row.normalized else row.content, row) for row in added]
    tokens = {id: token for token, id in vocab.items()} | {row.id: text for text, row in sought}
    hidden = {row.id for row in added if row.special}
    if fields.get("decoder") is None:
        raise Unfamiliar("a tokenizer without a decoder")
    piece, strip = read_kind(fields.nested("decoder"), DECODERS)
    prefix, suffix = read_part(fields, "post_processor", PROCESSORS, ALONE)
    return Tokenizer(
        raw_added=Finder.of((text, row) for text, row in sought if not row.normalized),
        normalised_added=Finder.of((text, row) for text, row in sought if row.normalized),
        normalise=normalise,
        split=read_part(fields, "pre_tokenizer", SPLITTERS, one_word),
        bpe=read_bpe(model, vocab),
        prefix=prefix,
        suffix=suffix,
        pieces=tuple(
            None if id in hidden or id not in tokens else piece(tokens[id])
            for id in range(max(tokens, default=-1) + 1)
        ),
        strip=strip,
    )


ALONE: Process = ((), ())


def one_word(text: str, first: bool) -> Iterable[str]:
    return (text,)


def read_part(fields: Fields, name: str, rows: Rows[Part], default: Part) -> Part:
    """The part called `name`, made by the row of its type; null is the default."""
    if fields.get(name) is None:
        return default
    return read_kind(fields.nested(name), rows)


def read_kind(part: Fields, rows: Rows[Part]) -> Part:
    kind = part.text("type")
    if kind not in rows:
        raise Unfamiliar(f"{part.where}type {shown(kind)}")
    return rows[kind](part)


def read_list(part: Fields, name: str, rows: Rows[Part]) -> list[Part]:
    """The parts of a Sequence."""
    return [read_kind(item, rows) for item in read_items(part, name)]


def read_items(part: Fields, name: str) -> list[Fields]:
    """An array of objects."""
    items = []
    for place, values in enumerate(part.array(name)):
        if type(values) is not dict:
            part.refuse(name, "expected an array of objects")
        items.append(Fields(part.path, values, f"{part.where}{name}[{place}]."))
    return items


def only(part: Fields, **wanted: object) -> None:
    """Options that are read here only with one value."""
    for name, value in wanted.items():
        if part.get(name) not in (None, value):
            raise Unfamiliar(f"{part.where}{name} = {shown(part.get(name))}")


# --- model and added tokens ---------------------------------------------------------------------


def read_vocab(model: Fields) -> dict[str, int]:
    if model.get("type") not in ("BPE", None):
        raise Unfamiliar(f"{model.where}type {shown(model.get('type'))}")
    table = model.nested("vocab")
    vocab = {token: table.integer(token, 0, MAX_TOKENS) for token in table.values}
    if len(set(vocab.values())) != len(vocab):
        raise FormatError(f"{model.path}: model.vocab: two tokens have one id")
    return vocab


def read_bpe(model: Fields, vocab: dict[str, int]) -> Bpe:
    only(model, dropout=0, continuing_subword_prefix="", end_of_word_suffix="")
    unknown = model.get("unk_token")
    if unknown is not None and vocab.get(model.text("unk_token")) is None:
        model.refuse("unk_token", "expected a token of model.vocab")
    return Bpe(
        vocab=vocab,
        merges=read_merges(model, vocab),
        whole_words=model.flag("ignore_merges", default=False),
        bytes=read_bytes_of(model, vocab),
        unknown=None if unknown is None else vocab[model.text("unk_token")],
        fuse_unknown=model.flag("fuse_unk", default=False),
    )


def read_merges(model: Fields, vocab: dict[str, int]) -> Merges:
    """Rank = place in the list; a merge is "left right", or ["left", "right"] in newer files."""
    merges = {}
    for rank, row in enumerate(model.array("merges")):
        pair = row.split(" ") if type(row) is str else row
        if type(pair) is not list or len(pair) != 2 or not all(type(s) is str for s in pair):
            raise FormatError(f"{model.path}: model.merges[{rank}] is {shown(row)}, no pair")
        left, right = pair
        try:
            merges[vocab[left], vocab[right]] = rank, vocab[left + right]
        except KeyError as missing:
            raise FormatError(
                f"{model.path}: model.merges[{rank}] needs {missing}, which model.vocab lacks"
            ) from None
    return merges


def read_bytes_of(model: Fields, vocab: dict[str, int]) -> tuple[int, ...] | None:
    if not model.flag("byte_fallback", default=False):
        return None
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    if any(name not in vocab for name in names):
        raise Unfamiliar("model.byte_fallback without all 256 byte tokens")
    return tuple(vocab[name] for name in names)


ADDED_FLAGS = ("lstrip", "rstrip", "normalized", "special")


def read_added(fields: Fields, vocab: dict[str, int]) -> list[AddedToken]:
    if fields.get("added_tokens") is None:
        return []
    added = []
    for row in read_items(fields, "added_tokens"):
        only(row, single_word=False)
        flags = {name: row.flag(name, False) for name in ADDED_FLAGS}
        token = AddedToken(row.integer("id", 0, MAX_TOKENS), row.text("content"), **flags)
        if vocab.get(token.content, token.id) != token.id:
            row.refuse("id", f"model.vocab gives {shown(token.content)} another")
        added.append(token)
    return added


# --- normalisers: text -> text ------------------------------------------------------------------


def prepend(part: Fields) -> Normalise:
    mark = part.text("prepend")
    return lambda text: mark + text if text else text


def replace(part: Fields) -> Normalise:
    old, new = read_literal(part), part.text("content")
    return lambda text: text.replace(old, new)


def read_literal(part: Fields) -> str:
    pattern = part.nested("pattern")
    if set(pattern.values) != {"String"} or not pattern.text("String"):
        raise Unfamiliar(f"{part.where}pattern = {shown(pattern.values)}")
    return pattern.text("String")


def normalise_all(part: Fields) -> Normalise:
    steps = read_list(part, "normalizers", NORMALISERS)

    def run(text: str) -> str:
        for step in steps:
            text = step(text)
        return text

    return run


NORMALISERS: Rows[Normalise] = {"Sequence": normalise_all, "Prepend": prepend, "Replace": replace}


# --- splitters: text -> words -------------------------------------------------------------------


def byte_alphabet() -> dict[int, str]:
    """GPT-2's printable character for each byte: itself where it prints, else from U+0100 on."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in prints]
    return {byte: chr(byte) for byte in prints} | {
        byte: chr(0x100 + place) for place, byte in enumerate(others)
    }


# latin-1 maps byte b to character b, so str.translate turns bytes into the alphabet
ALPHABET = byte_alphabet()
BYTE_OF = {char: byte for byte, char in ALPHABET.items()}
_GPT2 = over_shapes(GPT2)


def byte_level(part: Fields) -> Split:
    space, cuts = part.flag("add_prefix_space", True), part.flag("use_regex", True)

    def run(text: str, first: bool) -> Iterator[str]:
        if space and not text.startswith(" "):
            text = " " + text
        for word in cut(text, _GPT2) if cuts else (text,):  # type: ignore[arg-type]
            yield word.encode().decode("latin-1").translate(ALPHABET)

    return run


def split_by(part: Fields) -> Split:
    only(part, behavior="Isolated", invert=False)
    pattern = part.nested("pattern")
    text = pattern.get("Regex")
    found = over_shapes(text) if type(text) is str else None
    if found is None:
        raise Unfamiliar(f"{part.where}pattern = {shown(pattern.values)}")
    return lambda text, first: cut(text, found)


def digits(part: Fields) -> Split:
    found = over_shapes(r"\p{N}" if part.flag("individual_digits", False) else r"\p{N}+")
    return lambda text, first: cut(text, found)  # type: ignore[arg-type]


def metaspace(part: Fields) -> Split:
    """Spaces become a visible mark, one is put in front, and words begin at a mark."""
    mark, cuts = part.text("replacement"), part.flag("split", True)
    old = "always" if part.flag("add_prefix_space", True) else "never"
    scheme = part.text("prepend_scheme", old)
    if len(mark) != 1 or scheme not in ("always", "first", "never"):
        part.refuse("prepend_scheme", 'expected "always", "first" or "never"')
    words = re.compile(f"{re.escape(mark)}[^{re.escape(mark)}]*|[^{re.escape(mark)}]+")

    def run(text: str, first: bool) -> Iterable[str]:
        text = text.replace(" ", mark)
        wanted = scheme == "always" or (scheme == "first" and first)
        if wanted and not text.startswith(mark):
            text = mark + text
        return words.findall(text) if cuts else (text,)

    return run


def split_all(part: Fields) -> Split:
    steps = read_list(part, "pretokenizers", SPLITTERS)

    def run(text: str, first: bool) -> list[str]:
        words = [text]
        for step in steps:
            words = [w for i, word in enumerate(words) for w in step(word, first and i == 0)]
        return words

    return run


SPLITTERS: Rows[Split] = {
    "Sequence": split_all,
    "ByteLevel": byte_level,
    "Split": split_by,
    "Digits": digits,
    "Metaspace": metaspace,
}


# --- processors: what stands around the text ----------------------------------------------------


def template(part: Fields) -> Process:
    """`single`: special tokens before and behind one Sequence."""
    table = part.nested("special_tokens")
    sides: tuple[list[int], list[int]] = ([], [])
    seen = 0
    for item in read_items(part, "single"):
        if set(item.values) not in ({"SpecialToken"}, {"Sequence"}):
            part.refuse("single", "expected SpecialToken and Sequence entries")
        if "Sequence" in item.values:
            seen += 1
            continue
        name = item.nested("SpecialToken").text("id")
        ids = table.nested(name).array("ids")
        sides[min(seen, 1)].extend(id for id in ids if type(id) is int and 0 <= id <= MAX_TOKENS)
    if seen != 1:
        part.refuse("single", "expected exactly one Sequence")
    return tuple(sides[0]), tuple(sides[1])


def process_all(part: Fields) -> Process:
    rows = read_list(part, "processors", PROCESSORS)
    # each later processor wraps what the ones before it made
    before = [id for prefix, _ in reversed(rows) for id in prefix]
    return tuple(before), tuple(id for _, suffix in rows for id in suffix)


PROCESSORS: Rows[Process] = {
    "Sequence": process_all,
    "ByteLevel": lambda part: ALONE,  # trims offsets, which are not kept here
    "TemplateProcessing": template,
}


# --- decoders: token -> bytes -------------------------------------------------------------------


def byte_pieces(part: Fields) -> Pieces:
    return alphabet_bytes, 0


def alphabet_bytes(token: str) -> bytes:
    """The bytes its characters stand for; a token with any other character is itself."""
    if all(char in BYTE_OF for char in token):
        return bytes(BYTE_OF[char] for char in token)
    return token.encode()


def fallback_pieces(part: Fields) -> Pieces:
    """Llama 2: Replace mark by space, <0xNN> is a byte, join, strip one leading space."""
    marks: list[tuple[str, str]] = []
    strip, kinds = 0, []
    for step in read_items(part, "decoders"):
        kinds.append(step.text("type"))
        if kinds[-1] == "Replace":
            marks.append((read_literal(step), step.text("content")))
        elif kinds[-1] == "Strip":
            only(step, content=" ", stop=0)
            strip = step.integer("start", 0, 16)
    if kinds[:3] != ["Replace", "ByteFallback", "Fuse"] or kinds[3:] not in ([], ["Strip"]):
        raise Unfamiliar(f"{part.where}decoders {shown(kinds)}")

    def piece(token: str) -> bytes:
        if re.fullmatch("<0x[0-9A-F]{2}>", token):
            return bytes([int(token[3:5], 16)])
        for old, new in marks:
            token = token.replace(old, new)
        return token.encode()

    return piece, strip


DECODERS: Rows[Pieces] = {"ByteLevel": byte_pieces, "Sequence": fallback_pieces}
