"""The C declaration: all that the lifter is told about a function.

    void scalar_silu(const float *x, float *out, size_t n)

A pointer to const is an input, a plain pointer an output or in/out (the code says which), an
integer a dimension, a float a scalar.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import LiftError

# C type -> width in bits
INTEGERS = {
    "size_t": 64, "ptrdiff_t": 64, "int64_t": 64, "uint64_t": 64, "long": 64,
    "unsigned long": 64, "int": 32, "int32_t": 32, "uint32_t": 32, "unsigned": 32,
    "unsigned int": 32, "long long": 64, "unsigned long long": 64, "ssize_t": 64,
}  # fmt: skip
RESULTS = ("void", "float", "double", *INTEGERS)
DECLARATION = re.compile(
    r"\s*(?P<result>[\w\s]+?)\s+(?P<name>\w+)\s*\((?P<args>[^{]*)\)\s*(?:;|\{.*)?\s*", re.DOTALL
)
STORAGE = re.compile(r'\b(?:extern\s*"C"|extern|static|inline|__inline)(?=\s)')
ARGUMENT = re.compile(r"(?P<type>[\w\s]+?)\s*(?P<star>\*?)\s*(?P<name>\w+)")
ARRAY = re.compile(r"(\w+)\s*\[\w*\]\s*$")  # x[] and x[8] are pointers
QUALIFIERS = ("restrict", "__restrict", "__restrict__", "volatile")
PREFIX = "scalar_"


@dataclass(frozen=True, slots=True)
class Argument:
    """kind: pointer | dim | scalar; `width` in bits of an integer. A dim that is `data` measures
    nothing: conditions on it are part of the formula, as those on elements are."""

    name: str
    kind: str
    ctype: str
    const: bool = False
    data: bool = False

    @property
    def width(self) -> int:
        return INTEGERS[self.ctype] if self.kind == "dim" else 64


@dataclass(frozen=True, slots=True)
class Signature:
    """A parsed declaration; `symbol` is the C name, `name` the operator's."""

    symbol: str
    result: str
    arguments: tuple[Argument, ...]

    @property
    def name(self) -> str:
        return self.symbol.removeprefix(PREFIX)

    def of_kind(self, kind: str) -> tuple[Argument, ...]:
        return tuple(a for a in self.arguments if a.kind == kind)

    def __str__(self) -> str:
        """The declaration in one spelling, whatever the spacing of the source was."""
        words = []
        for arg in self.arguments:
            star = " *" if arg.kind == "pointer" else " "
            words.append(f"{'const ' if arg.const else ''}{arg.ctype}{star}{arg.name}")
        return f"{self.result} {self.symbol}({', '.join(words)})"


def parse(declaration: str) -> Signature:
    """The signature, or a LiftError that shows the part that is not understood."""
    plain = STORAGE.sub("", declaration) if isinstance(declaration, str) else ""
    match = DECLARATION.fullmatch(plain)
    if match is None:
        raise LiftError(
            f"not a C function declaration: {declaration!r}; write it as in "
            "`void scalar_silu(const float *x, float *out, size_t n)`"
        )
    result = " ".join(match["result"].split())
    if result not in RESULTS:
        raise LiftError(f"{match['name']}: return type {result!r}; wanted {', '.join(RESULTS)}")
    texts = [t.strip() for t in match["args"].split(",")]
    args = tuple(_argument(match["name"], t) for t in texts if t not in ("", "void"))
    names = [a.name for a in args]
    if len(set(names)) < len(names):
        raise LiftError(f"{match['name']}: two arguments have the same name in {declaration!r}")
    return Signature(match["name"], result, args)


def _argument(function: str, text: str) -> Argument:
    spelled = ARRAY.sub(r"* \1", text)
    words = [w for w in spelled.replace("*", " * ").split() if w not in QUALIFIERS]
    if words[1:2] == ["const"]:  # `float const *x` is `const float *x`
        words[:2] = reversed(words[:2])
    const = words[:1] == ["const"]
    match = ARGUMENT.fullmatch(" ".join(words[const:]))
    ctype = match["type"].strip() if match else ""
    if match and match["star"]:
        return Argument(match["name"], "pointer", ctype, const)
    if ctype in ("float", "double"):
        return Argument(match["name"], "scalar", ctype)
    if ctype in INTEGERS:
        return Argument(match["name"], "dim", ctype)
    raise LiftError(
        f"{function}: argument {text!r}; wanted `const float *x` (input), `float *x` (output), "
        f"`float s` (scalar) or one of {', '.join(INTEGERS)} (dimension)"
    )
