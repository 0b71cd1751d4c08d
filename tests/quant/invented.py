"""Random weight formats as C decoders: codes in streams, planes or bytes; offsets, tables, signs,
shifts and zero points; scales of halves, floats and integers in groups; minima; shuffled headers."""

from __future__ import annotations

import random

HEAD = '#include "block.h"\n'
FLOATS = {"f16": (2, "half(u16({}))"), "f32": (4, "real(u32({}))"), "bf16": (2, "real(u16({}) << 16)")}
READ = """static inline int bits_{n}(const uint8_t *p, unsigned at, unsigned count) {{
    unsigned low = p[at / 8] >> at % 8, more = at % 8 + count > 8 ? p[at / 8 + 1] << (8 - at % 8) : 0;
    return (int)((low | more) & ((1u << count) - 1));
}}
"""


class Layout:
    """Parts of a block in random order."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.parts = rng, {}

    def part(self, name: str, size: int) -> str:
        self.parts[name] = size
        return f"(block + AT_{name})"

    def placed(self, text: str) -> tuple[str, int]:
        at, order = self.rng.choice((0, 0, 1, 3)), list(self.parts)
        self.rng.shuffle(order)
        for name in order:
            text = text.replace(f"AT_{name})", f"{at})")
            at += self.parts[name]
        return text, at + self.rng.choice((0, 0, 2))


def code(rng: random.Random, layout: Layout, values: int, bits: int, n: int) -> str:
    """The stored number of value i."""
    kind = rng.choice(("stream", "planes", "halves") if bits in (3, 5, 6) else ("stream", "halves"))
    if kind == "planes" and bits > 4:
        low, high = layout.part("low", values // 2), layout.part("high", values * (bits - 4) // 8)
        return (f"(bits_{n}({low}, {values * 2} * (i % 2) + 4 * (i / 2), 4)"
                f" | bits_{n}({high}, {bits - 4} * i, {bits - 4}) << 4)")  # fmt: skip
    codes = layout.part("codes", (values * bits + 7) // 8 + 1)
    if kind == "halves" and 8 % bits == 0:
        per, wide = 8 // bits, values * bits // 8
        return f"bits_{n}({codes}, 8 * (i % {wide}) + {bits} * (i / {wide}) % {8 * per}, {bits})"
    return f"bits_{n}({codes}, {bits} * i, {bits})"


def meant(rng: random.Random, bits: int, n: int) -> tuple[str, str]:
    """(constants, the number that a stored one means)."""
    top = 1 << bits
    kind = rng.choice(("plain", "offset", "table", "sign", "flipped", "odd"))
    if kind == "table":
        levels = ", ".join(str(rng.randint(-127, 127)) for _ in range(top))
        return f"static const int8_t LEVELS_{n}[{top}] = {{{levels}}};\n", f"LEVELS_{n}[u]"
    return "", {
        "plain": "u", "offset": f"(u - {rng.randint(1, top)})", "odd": "(2 * u + 1)",
        "sign": f"(u & {top // 2} ? -(u & {top // 2 - 1}) - 1 : (u & {top // 2 - 1}) + 1)",
        "flipped": f"((u ^ {rng.randint(1, top - 1)}) - {top // 2})",
    }[kind]  # fmt: skip


def invented(seed: int, n: int) -> tuple[str, int]:
    """(C text of decode_x<n>, bytes of a block)."""
    rng = random.Random(seed)
    layout, values = Layout(rng), rng.choice((32, 32, 64, 128, 256))
    bits, group = rng.choice((1, 2, 3, 4, 4, 5, 6, 8)), rng.choice((8, 16, 32))
    constants, number = meant(rng, bits, n)
    stored = code(rng, layout, values, bits, n)
    groups, kind = values // group, rng.choice(tuple(FLOATS))
    size, read = FLOATS[kind]
    scale = read.format(layout.part("d", size))
    width = rng.choice((0, 0, 4, 6, 8))
    if width and kind != "f32":
        part = f"bits_{n}({layout.part('scales', groups * width // 8 + 2)}, {width} * g, {width})"
        scale += f" * (float)({part} - {rng.choice((0, 1, 1 << width - 1))})"
    value = f"scale * (float){number}"
    if rng.random() < 0.3:
        zero = layout.part("zeros", groups)
        value = f"scale * (float)({number} - {zero}[g])"
    if rng.random() < 0.4:
        value += f" - {FLOATS['f16'][1].format(layout.part('m', 2))}"
    body = f"""void decode_x{n}(const uint8_t *block, float *out) {{
    for (unsigned i = 0; i < {values}; i++) {{
        unsigned g = i / {group};
        int u = {stored};
        float scale = {scale};
        out[i] = {value};
        (void)g;
    }}
}}
"""
    text, total = layout.placed(body)
    return constants + READ.format(n=n) + text, total
