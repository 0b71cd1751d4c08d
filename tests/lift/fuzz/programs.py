"""Random scalar C functions over arrays, most of them operators, some with one thing twisted.

    program(seed) -> Program      the same text for the same seed, on every machine

A program is a nest of outer loops around passes: reductions into locals, then a pass that stores
one or two outputs. A twist is what no formula holds for (an exception for element 13, a threshold
on n, a delay line, an early exit), or what only looks like one. Nothing is labelled: a function is
lifted to what it computes, or refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from expressions import CONSTANTS, FUNCTIONS, condition, expression, statements

HEADER = "#include <math.h>\n#include <stddef.h>\n#include <stdint.h>\n" + FUNCTIONS
# fmt: off
DIM_TYPES = ("size_t",) * 6 + ("int", "int", "int64_t", "unsigned", "long", "int32_t", "uint32_t")
NAMES = {1: ("n",), 2: ("m", "n"), 3: ("m", "n", "k")}
STYLES = ("up",) * 5 + ("walk", "walk", "ends", "down", "falling", "while", "do", "one", "unequal", "unroll2",
          "unroll4", "masked4")
# (start value, step of the reduction); {0} is the term
FOLDS = (
    ("0.0f", "r += {0};"), ("0.0f", "r = r + ({0});"), ("0.0f", "r = ({0}) + r;"),
    ("0.0f", "r += {0};"), ("s", "r += {0};"), ("1.0f", "r += {0};"), ("1.0f", "r *= {0};"),
    ("0.0f", "r = fmaf({0}, {0}, r);"), ("0.0f", "r -= {0};"),
    ("-INFINITY", "if ({0} > r) r = {0};"), ("-INFINITY", "r = r > {0} ? r : {0};"),
    ("-INFINITY", "r = {0} > r ? {0} : r;"), ("-INFINITY", "r = fmaxf(r, {0});"),
    ("INFINITY", "r = {0} < r ? {0} : r;"), ("INFINITY", "r = fminf({0}, r);"),
    ("0.0f", "r = larger(r, {0});"), ("-1e30f", "r = {0} <= r ? r : {0};"),
    ("first", "r += {0};"), ("first", "if (r < {0}) r = {0};"), ("first", "r = fmaxf({0}, r);"),
)
# fmt: on
NEAR = (0, 1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 15, 16, 19, 31, 32, 40, 63, 64, 100, 127, 200, 255, 299)
LARGE = (300, 301, 500, 511, 777, 1000, 1023, 2047)


@dataclass(frozen=True, slots=True)
class Program:
    """A function to lift. `arrays` are (name, C type, lengths as Python text over the sizes)."""

    name: str
    text: str
    declaration: str
    dims: tuple[str, ...]
    arrays: tuple[tuple[str, str, tuple[str, ...]], ...]
    scalars: tuple[str, ...]
    twist: str
    corners: tuple[int, ...]  # sizes at which something may change

    @property
    def source(self) -> str:
        return f"{HEADER}{self.text}"


@dataclass
class Writer:
    """The program as it grows."""

    rng: Random
    dims: tuple[str, ...] = ()
    ctype: str = "size_t"
    counter: str = "size_t"
    inputs: dict[str, set[str]] = field(default_factory=dict)  # array -> lengths
    outputs: dict[str, set[str]] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    scalars: tuple[str, ...] = ()
    globals: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)  # at the start of the function
    body: list[Callable[[str], list[str]]] = field(default_factory=list)  # of the last pass
    bounds: dict[str, str] = field(default_factory=dict)
    index: Callable[[str], str] | None = None
    step: str = ""
    corners: set[int] = field(default_factory=set)
    twist: str = ""
    strided: bool = False
    slack: str = "0"  # elements of every array beyond what its indices say
    fresh: int = 0

    def constant(self) -> int:
        """A number that a condition compares with; sizes around it are tried later."""
        value = self.rng.choice(NEAR if self.rng.random() < 0.85 else LARGE)
        self.corners.add(value)
        return value

    def name(self, prefix: str) -> str:
        self.fresh += 1
        return f"{prefix}{self.fresh}"


def program(seed: int) -> Program:
    rng = Random(seed)
    w = Writer(rng)
    w.dims = NAMES[rng.choices((1, 2, 3), (0.55, 0.37, 0.08))[0]]
    w.ctype = rng.choice(DIM_TYPES)
    w.counter = w.ctype if rng.random() < 0.85 else rng.choice(DIM_TYPES)
    w.scalars = ("s", "t")[: rng.choice((0, 1, 1, 2))]
    w.strided = len(w.dims) == 2 and rng.random() < 0.12
    for name in ("x", "y", "z")[: rng.choice((1, 1, 2, 2, 3))]:
        w.inputs[name] = set()
        w.types[name] = rng.choice(("float",) * 12 + ("double", "int8_t", "uint8_t", "int32_t"))
    twist = rng.choice(TWISTS) if rng.random() < 0.45 else None
    if twist:
        w.twist = twist.__name__.strip("_")
        twist(w)
    text, result = _function(w)
    return _program(w, seed, text, result)


def _program(w: Writer, seed: int, lines: list[str], result: str) -> Program:
    written = "\n".join(lines)
    outs = {o: ls for o, ls in w.outputs.items() if re.search(rf"\b{o}\b", written)}
    arguments = [f"const {w.types[x]} *{x}" for x in w.inputs]
    arguments += [f"{w.types[o]} *{o}" for o in outs]
    dims = (*w.dims, "ld") if w.strided else w.dims
    arguments += [f"{w.ctype} {d}" for d in dims] + [f"float {s}" for s in w.scalars]
    if w.rng.random() < 0.2:
        w.rng.shuffle(arguments)
    declaration = f"{result} f{seed}({', '.join(arguments)})"
    text = "\n".join([*w.globals, f"{declaration} {{", *(f"  {line}" for line in lines), "}"])
    arrays = [
        (a, w.types[a], tuple(f"{length} + {w.slack}" for length in sorted(ls)))
        for a, ls in {**w.inputs, **outs}.items()
    ]
    corners = tuple(sorted(w.corners))
    return Program(
        f"f{seed}", text + "\n", declaration, dims, tuple(arrays), w.scalars, w.twist, corners
    )


# ---- arrays


def load(w: Writer, scope: list[tuple[str, str]]) -> str:
    """An element of an input at the loop variables in scope, a row per outer one."""
    rng = w.rng
    name = rng.choice(list(w.inputs))
    if not scope:
        w.inputs[name].add("1")
        return f"{name}[0]"
    axes = list(scope)
    while len(axes) > 1 and rng.random() < 0.3:
        axes.pop(rng.randrange(len(axes)))
    if len(axes) > 1 and rng.random() < 0.2:
        rng.shuffle(axes)
    if len(axes) == 1 and rng.random() < 0.12 and axes[0][0] not in w.bounds:
        return _odd_element(w, name, *axes[0])
    text, length = position(w, axes)
    w.inputs[name].add(length)
    return f"{name}[{text}]"


def _odd_element(w: Writer, name: str, var: str, dim: str) -> str:
    text, length = w.rng.choice((
        (f"2*${var}", f"2*{dim}"), (f"2*${var} + 1", f"2*{dim}"), (f"${var} + 1", f"{dim} + 1"),
        (f"{dim} - 1 - ${var}", dim), (f"3 + ${var}", f"{dim} + 3"), (f"{dim} + ${var}", f"2*{dim}"),
    ))  # fmt: skip
    w.inputs[name].add(length)
    return f"{name}[{text}]"


def position(w: Writer, axes: list[tuple[str, str]]) -> tuple[str, str]:
    """Horner's rule over the axes: ($i*n + $j)*k + $p, and the length of the array."""
    text, length = f"${axes[0][0]}", axes[0][1]
    for number, (var, dim) in enumerate(axes[1:]):
        stride = "ld" if w.strided and len(axes) == 2 else dim
        text = f"({text})*{stride} + ${var}" if number else f"{text}*{stride} + ${var}"
        length = f"{length}*{stride}"
    return text, f"{length} + {axes[-1][1]}" if w.strided else length


def leaves(w: Writer, scope: list[tuple[str, str]], extra: list[str]) -> list[str]:
    """What an expression may read here."""
    found = [load(w, scope) for _ in range(w.rng.choice((1, 2, 2, 3)))] * 2
    found += extra + list(w.scalars)
    if scope and w.rng.random() < 0.12:
        found.append(f"(float)${scope[-1][0]}")
    if w.rng.random() < 0.1:
        found.append(f"(float){w.rng.choice(w.dims)}")
    if w.rng.random() < 0.03:
        found.append(f"(1.0f / (float){w.dims[-1]})")
    return found


# ---- loops


def loop(w: Writer, var: str, dim: str, body: list[str], inner: bool) -> list[str]:
    """A loop that runs `body` for $var = 0 .. dim-1, in one of many spellings."""
    style = w.rng.choice(STYLES)
    if var in w.bounds:
        dim = w.bounds.pop(var)
    if style in ("walk", "ends") and inner:
        return _walk(w, var, dim, body, style == "ends")
    if w.step and inner:
        step, w.step = w.step, ""
        head = f"for ({w.counter} {var} = 0; {var} < {dim}; {step.replace('$v', var)}) {{"
        return [head, *_at(body, var, var), "}"]
    if (style.startswith("unroll") or style == "masked4") and _short(body):
        return _unrolled(w, var, dim, body, int(style[-1]), style == "masked4")
    t = w.counter
    heads = {
        "down": (f"for ({t} {var} = {dim}; {var}-- > 0;) {{", var, ""),
        "falling": (f"for ({t} {var} = {dim}; {var} > 0; {var}--) {{", f"({var} - 1)", ""),
        "while": (f"{t} {var} = 0; while ({var} < {dim}) {{", var, f"{var}++;"),
        "one": (f"for ({t} {var} = 1; {var} <= {dim}; {var}++) {{", f"({var} - 1)", ""),
        "unequal": (f"for ({t} {var} = 0; {var} != {dim}; ++{var}) {{", var, ""),
    }
    if style == "do":
        inside = ["{", f"{t} {var} = 0; if ({dim} > 0) do {{", *_at(body, var, var)]
        return [*inside, f"}} while (++{var} < {dim});", "}"]
    usual = (f"for ({t} {var} = 0; {var} < {dim}; {var}++) {{", var, "")
    head, index, last = heads.get(style, usual)
    lines = [head, *_at(body, var, index), *([last] if last else []), "}"]
    return ["{", *lines, "}"] if style == "while" else lines


def _short(body: list[str]) -> bool:
    return len(body) < 12 and not any("for (" in line or "break" in line for line in body)


def _at(body: list[str], var: str, index: str) -> list[str]:
    return [re.sub(rf"\${var}\b", index, line) for line in body]


def _unrolled(
    w: Writer, var: str, dim: str, body: list[str], count: int, masked: bool
) -> list[str]:
    t = w.counter
    test = f"{var} < ({dim} & ~({t}){count - 1})" if masked else f"{var} + {count} <= {dim}"
    lines = [f"{{ {t} {var} = 0;", f"for (; {test}; {var} += {count}) {{"]
    for k in range(count):
        lines += ["{", *_at(body, var, f"({var} + {k})"), "}"]
    return [*lines, "}", f"for (; {var} < {dim}; {var}++) {{", *_at(body, var, var), "}", "}"]


def _walk(w: Writer, var: str, dim: str, body: list[str], ends: bool) -> list[str]:
    """Arrays read in order are walked by pointers; `ends` counts by one of them."""
    pattern = re.compile(rf"(\b\w+)\[((?:[^\[\]]*? \+ )?)\${var}\]")
    pointers: dict[tuple[str, str], str] = {}

    def pointer(match: re.Match) -> str:
        if f"${var}" in match[2] or match[1] not in w.types:
            return match[0]
        return "(*" + pointers.setdefault((match[1], match[2]), w.name("p")) + ")"

    body = [pattern.sub(pointer, line) for line in body]
    before = [f"__typeof__(*{a}) *{p} = {a} + {base}0;" for (a, base), p in pointers.items()]
    after = [f"{p}++;" for p in pointers.values()]
    plain = any(f"${var}" in line for line in body)
    if not ends or not pointers or plain:
        head = f"for ({w.counter} {var} = 0; {var} < {dim}; {var}++) {{"
        return ["{", *before, head, *_at(body, var, var), *after, "}", "}"]
    first = next(iter(pointers.values()))
    head = f"for (__typeof__({first}) end = {first} + {dim}; {first} != end;) {{"
    return ["{", *before, head, *body, *after, "}", "}"]


def nest(w: Writer, axes: list[tuple[str, str]], body: list[str]) -> list[str]:
    """Loops over all axes, the first outermost."""
    for var, dim in reversed(axes):
        body = loop(w, var, dim, body, inner=not any("for (" in b or "while (" in b for b in body))
    return body


# ---- the function


def _function(w: Writer) -> tuple[list[str], str]:
    """(lines, return type)."""
    rng, axes = w.rng, list(zip("ijp", w.dims, strict=False))
    outer = axes[: rng.randrange(len(axes) + 1)]
    inner = axes[len(outer) :]
    values: list[str] = []
    lines: list[str] = []
    reduces = rng.choice((0, 1, 1, 2, 3)) if inner and (outer or rng.random() < 0.5) else 0
    for _ in range(reduces):
        name = w.name("r")
        lines += _reduction(w, name, outer, inner, values)
        values.append(name)
    stores = not values or rng.random() < 0.5
    if not stores and not outer:
        returned = expression(rng, [*values, *values, *leaves(w, [], [])], rng.choice((0, 1, 2)))
        return [*w.before, *lines, f"return {returned};"], "float"
    lines += _stores(w, outer, inner if stores else [], values)
    if rng.random() < 0.1:
        w.before.append(f"if ({w.dims[-1]} == 0) return;")
    return [*w.before, *nest(w, outer, lines)], "void"


def _reduction(w: Writer, name: str, outer: list, inner: list, values: list[str]) -> list[str]:
    """`float name` = a reduction over the inner axes."""
    rng = w.rng
    init, step = rng.choice(FOLDS)
    scope = [*outer, *inner]
    term = load(w, scope)
    while rng.random() < 0.97 and f"${inner[-1][0]}" not in term:
        term = load(w, scope)
    body = statements(rng, [*leaves(w, scope, values), term], "e", rng.choice((0, 1, 1, 2)))
    if rng.random() < 0.95 and not any(f"${inner[-1][0]}" in line for line in body):
        body.append(f"e = e {rng.choice('+-*')} {term};")
    body = [*body, *(line for twist in w.body for line in twist("e"))]
    if w.index:
        body = _misplaced(w, body, inner[-1][0])
    if init == "first":
        first = load(w, outer) if outer else load(w, [])
        init = first
    elif init == "s" and not w.scalars:
        init = "0.0f"
    update = step.format("e").replace("r", name, 1) if step.startswith("r ") else step.format("e")
    body.append(re.sub(r"\br\b", name, update))
    return [f"float {name} = {init};", *nest(w, inner, body)]


def _stores(w: Writer, outer: list, inner: list, values: list[str]) -> list[str]:
    """One or two outputs at every point of the outer and inner axes."""
    rng, axes = w.rng, [*outer, *inner]
    value = "v"
    extra = list(values)
    text, length = position(w, axes) if axes else ("0", "1")
    if len(axes) > 1 and rng.random() < 0.1:
        text, length = position(w, axes[::-1])
    outputs = ["o"] if rng.random() < 0.85 else ["o", "q"]
    for name in outputs:
        w.types[name] = "float" if rng.random() < 0.94 else "double"
        w.outputs[name] = {length}
    if rng.random() < 0.15:
        extra.append(f"o[{text}]")
    lines = statements(rng, leaves(w, axes, extra), value, rng.choice((1, 2, 2, 3)))
    if axes and axes[-1][1] == w.dims[-1]:
        lines += [line for twist in w.body for line in twist(value)]
        lines = _misplaced(w, lines, axes[-1][0]) if w.index else lines
    lines += _store_lines(w, outputs, text, length, value)
    return nest(w, inner, lines)


def _store_lines(w: Writer, outputs: list[str], text: str, length: str, value: str) -> list[str]:
    rng = w.rng
    if rng.random() < 0.06 and "$" in text:  # two interleaved streams
        w.outputs["o"] = {f"2*({length})"}
        other = expression(rng, [value, *w.scalars, "2.0f"], 2)
        return [f"o[2*({text})] = {value};", f"o[2*({text}) + 1] = {other};"]
    lines = [f"o[{text}] = {value};"]
    if rng.random() < 0.05:
        lines = [f"o[{text}] = 0.0f;", f"o[{text}] += {value};"]
    for name in outputs[1:]:
        leaf = rng.choice((value, f"o[{text}]"))
        lines.append(f"{name}[{text}] = {expression(rng, [leaf, *w.scalars], 2)};")
    return lines


def _misplaced(w: Writer, lines: list[str], var: str) -> list[str]:
    """One array is read at another place than the loop variable says."""
    change = w.index
    w.index = None
    for name in w.inputs:
        if any(re.search(rf"\b{name}\[[^\]]*\${var}\b", line) for line in lines):
            pattern = re.compile(rf"\b({name}\[[^\]]*?)\${var}\b(?=[^\]]*\])")
            return [pattern.sub(lambda m: f"{m[1]}({change(f'${var}')})", line) for line in lines]
    return lines


# ---- twists


def _exception(w: Writer) -> None:
    """Some elements are computed by another formula."""
    rng, k = w.rng, w.constant()
    dim = w.dims[-1]
    var = "ijp"[len(w.dims) - 1]
    test = rng.choice((
        f"${var} == {k}", f"${var} < {k}", f"${var} > {k}", f"${var} != {k}", f"${var} == {dim} - 1",
        f"${var} + {k} >= {dim}", f"(${var} & {k}) == 0", f"${var} % {k + 2} == {k % 3}",
        f"${var} == {dim} / 2", f"{dim} > {k} && ${var} == 0",
        *((f"$j > $i", f"$i == $j", f"$i*{dim} + $j == {k}") if len(w.dims) == 2 else ()),
    ))  # fmt: skip
    other = rng.choice(("0.0f", "{v} + 1.0f", "-{v}", "{v} * 2.0f", "1.0f", "{v} + 0.0f"))
    w.body.append(lambda v: [f"if ({test}) {v} = {other.format(v=v)};"])


def _threshold(w: Writer) -> None:
    """The formula depends on how large a size is."""
    k, dim = w.constant(), w.rng.choice(w.dims)
    test = w.rng.choice((
        f"{dim} > {k}", f"{dim} == {k}", f"{dim} <= {k}", f"{dim} % {k + 2} == {k % 2}",
        f"({dim} & {k}) == {k & 6}", f"{w.dims[0]} * {dim} > {k}", f"{w.dims[0]} + {dim} == {k}",
        f"{dim} - {k} < 3", f"{dim} / 2 > {k}", f"{dim} << 24 == 0",
    ))  # fmt: skip
    wide = w.rng.choice(("1.0f", "0.0f", "-1.0f", "(float)" + dim))
    w.before.append(f"float w0 = 1.0f; if ({test}) w0 = {wide};")
    w.body.append(lambda v: [f"{v} = {v} * w0;"])


def _masked_index(w: Writer) -> None:
    """An array is read at a function of the counter that is not linear."""
    k = w.constant()
    dim = w.dims[-1]
    w.index = w.rng.choice((
        lambda i: f"({i}) & {k}", lambda i: f"({i}) % {k + 1}", lambda i: f"({i}) / 2",
        lambda i: f"({i}) >> 1", lambda i: f"({i}) < {k} ? ({i}) : {k}",
        lambda i: f"({i}) ^ 1", lambda i: f"{dim} - 1 - ({i})", lambda i: f"({i}) & ~1",
        lambda i: f"({i}) % {dim}", lambda i: f"({i} + {k}) % {dim}",
        lambda i: f"(unsigned char)({i})", lambda i: f"(short)({i})", lambda i: f"({i}) * ({i}) / ({i} + 1)",
    ))  # fmt: skip
    for lengths in w.inputs.values():
        lengths.add(
            f"{dim} + {k} + 2" if len(w.dims) == 1 else f"{'*'.join(w.dims)} + {k} + {dim} + 2"
        )


def _counter_value(w: Writer) -> None:
    """A number made from the counter goes into the value."""
    k, var = w.constant(), "$" + "ijp"[len(w.dims) - 1]
    dim = w.dims[-1]
    number = w.rng.choice((
        f"(float)({var} & {k})", f"(float)({var} * {var})", f"(float)({var} >> 1)",
        f"(float)({var} % {k + 1})", f"(float)({var} + {k})", f"(float)({dim} - {var})",
        f"(float)({var} * 100000u)", f"(float)(int8_t){var}", f"(float)(uint16_t)({var} * 3)",
        f"(float)({dim} & 7)", f"(float)({dim} / 2)", f"(float)({dim} % 3)", f"(float)({var} * {dim})",
        f"(float)({var} < {k})", f"(float)({var} ^ {k})", f"(float)(0.01f * (float){var})",
    ))  # fmt: skip
    w.body.append(lambda v: [f"{v} = {v} + {number};"])


def _delay(w: Writer) -> None:
    """A value from an earlier element is kept in a local."""
    kind, count = w.rng.choice(("delay", "recurrence", "line", "ring")), w.rng.randint(2, 6)
    if kind == "delay":
        w.before.append("float last = 0.0f;")
        w.body.append(lambda v: [f"{{ float now = {v}; {v} += last; last = now; }}"])
    elif kind == "recurrence":
        w.before.append("float last = 0.0f;")
        w.body.append(lambda v: [f"last = 0.5f * last + {v}; {v} = last;"])
    elif kind == "line":
        names = [f"d{k}" for k in range(count)]
        w.before.append("float " + ", ".join(f"{d} = 0.0f" for d in names) + ";")
        moves = " ".join(f"{a} = {b};" for a, b in zip(names, names[1:], strict=False))
        w.body.append(
            lambda v: [f"{{ float now = {v}; {v} += {names[0]}; {moves} {names[-1]} = now; }}"]
        )
    else:
        w.corners.add(count)
        w.before.append(f"float ring[{count}] = {{0}}; unsigned at = 0;")
        w.body.append(lambda v: [f"{{ float now = {v}; {v} += ring[at]; ring[at] = now; "
                                 f"at = at + 1 == {count} ? 0 : at + 1; }}"])  # fmt: skip


def _early_exit(w: Writer) -> None:
    k = w.constant()
    var = "$" + "ijp"[len(w.dims) - 1]
    test = w.rng.choice((
        "{v} > 3.0f", "{v} != {v}", "{v} == 0.0f", f"{var} == {k}", f"{var} > {k}", f"{var} == 2*{k}",
    ))  # fmt: skip
    leave = w.rng.choice(("break", "break", "continue"))
    w.body.append(lambda v: [f"if ({test.format(v=v)}) {leave};"])


def _bound(w: Writer) -> None:
    """A loop does not run over the whole dimension."""
    k, place = w.constant(), w.rng.randrange(len(w.dims))
    var, dim = "ijp"[place], w.dims[place]
    w.slack = f"9*({' + '.join(w.dims)} + 9)**{len(w.dims) - 1}"  # the bound may be a constant
    w.bounds[var] = w.rng.choice((
        f"({dim} < {k} ? {dim} : {k})", f"{dim} / 2", f"({dim} & ~1)", f"({dim} > {k} ? {dim} - {k} : 0)",
        f"({dim} + 1) / 2", f"{k % 9}", f"({dim} / 4 * 4)", f"({dim} > 0 ? {dim} - 1 : 0)", f"({dim} >> 2)",
    ))  # fmt: skip


def _uneven_step(w: Writer) -> None:
    k = w.constant()
    w.step = w.rng.choice((
        "$v += 2", "$v += 3", f"$v += ($v == {k} ? 2 : 1)", "$v = $v * 2 + 1", "$v += 1 + ($v & 1)",
        f"$v += {k % 7 + 1}",
    ))  # fmt: skip


def _data_store(w: Writer) -> None:
    """Whether an element is written depends on data, or on what was written before."""
    test = condition(w.rng, ["{v}", "{v}"])
    w.body.append(lambda v: [f"if ({test.format(v=v)}) continue;"])


def _state(w: Writer) -> None:
    """Memory that outlives the call, or a local that is not set on every path."""
    kind = w.rng.choice(("static", "global", "unset", "table", "flag"))
    var = "$" + "ijp"[len(w.dims) - 1]
    if kind == "static":
        w.before.append("static float calls = 0.0f; calls += 1.0f;")
        w.body.append(lambda v: [f"{v} += calls;"])
    elif kind == "global":
        name = f"level{w.rng.randrange(1 << 30)}"
        w.globals.append(f"float {name} = 1.5f;")
        w.body.append(lambda v: [f"{v} *= {name};"])
    elif kind == "unset":
        w.before.append("float kept = 0.0f;")
        w.body.append(lambda v: [f"if ({v} > 0.0f) kept = {v}; {v} = kept;"])
    elif kind == "table":
        name = f"table{w.rng.randrange(1 << 30)}"
        values = ", ".join(w.rng.choice(CONSTANTS) for _ in range(8))
        w.globals.append(f"static const float {name}[8] = {{{values}}};")
        w.body.append(lambda v: [f"{v} += {name}[{var} & 7];"])
    else:
        w.before.append("int seen = 0;")
        w.body.append(lambda v: [f"if ({v} < -1.0f) seen = 1; if (seen) {v} = 0.0f;"])


def _small_counter(w: Writer) -> None:
    w.counter = w.rng.choice(("short", "unsigned short", "unsigned char", "signed char", "int8_t"))
    w.corners.update((127, 128, 255, 256, 300))


def _variants(w: Writer) -> None:
    """Two spellings of one formula, chosen by the size: right as it is."""
    k = w.constant()
    dim = w.dims[-1]
    w.body.append(lambda v: [f"if ({dim} > {k}) {v} = {v} + 1.0f; else {v} = 1.0f + {v};"])


def _position(w: Writer) -> None:
    """The place of an element, found by data."""
    var = "$" + "ijp"[len(w.dims) - 1]
    w.before.append("float best = -INFINITY; float where = 0.0f;")
    w.body.append(
        lambda v: [f"if ({v} > best) {{ best = {v}; where = (float){var}; }} {v} = where;"]
    )


TWISTS = (
    _exception, _exception, _threshold, _threshold, _masked_index, _masked_index, _counter_value,
    _delay, _early_exit, _bound, _bound, _uneven_step, _data_store, _state, _small_counter,
    _variants, _position,
)  # fmt: skip
