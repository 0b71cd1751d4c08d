"""What is measured: kinds, shapes, types.

    gemm  m x n x k    c = a @ b (nn) or a @ b.T (nt)
    gemv  n x k        y = x @ b (nn) or b @ x (nt)
    ops   rows x columns
    quantised   m x n x k    c = a @ b.T, b in blocks of a weight format, see `quantised`
    attention   tokens x context x heads x shared x size, see `attention`
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod

import ml_dtypes
import numpy as np

from ...errors import ConfigError
from ...scalar.formats import FORMATS

PREPACKED = "gemm_prepacked"
KINDS = ("gemm", "gemv", "ops")
LAYOUTS = {"gemm": "nn", "gemv": "nt", "ops": ""}  # what is meant where none is asked for
TYPES = {"f32": np.dtype(np.float32), "f16": np.dtype(np.float16),
         "bf16": np.dtype(ml_dtypes.bfloat16)}
Shape = tuple[int, ...]


def cubes(*sizes: int) -> tuple[Shape, ...]:
    return tuple((size,) * 3 for size in sizes)


# fmt: off
GRID: tuple[Shape, ...] = (
    *cubes(64, 128, 192, 256, 384, 512, 768, 1000, 1024, 1536, 2048, 4096),
    # odd
    (127, 127, 127), (255, 257, 253), (333, 1001, 77), (511, 513, 515), (1023, 1025, 1027),
    (1999, 501, 999), (97, 4001, 67), (65, 129, 4095),
    # tall, wide, deep
    (4096, 64, 64), (4096, 128, 512), (4096, 256, 1024), (2048, 64, 2048), (4096, 1024, 256),
    (64, 4096, 64), (128, 4096, 512), (256, 4096, 1024), (64, 2048, 2048), (1024, 4096, 256),
    (64, 64, 4096), (256, 256, 4096),
    # few rows
    *((m, 4096, 4096) for m in (2, 4, 8, 16, 24, 32, 48, 64)),
)
LLAMA7B = ((4096, 4096), (11008, 4096), (4096, 11008))  # n, k: attention, gate and up, down
PRODUCTS: dict[str, tuple[Shape, ...]] = {
    "square": cubes(256, 512, 1000, 1024, 2048, 4096),
    "skinny": tuple((m, 4096, 4096) for m in (1, 2, 4, 8, 16, 32, 64)),
    "llama7b": tuple((m, *nk) for m, nk in product((1, 16, 512), LLAMA7B)),
    "grid": GRID,
}
ROWS: dict[str, tuple[Shape, ...]] = {
    "cache": ((16, 4096),),
    "llama7b": ((1, 4096), (16, 4096), (512, 4096)),
}
DEFAULTS = {"gemm": "square", "gemv": "llama7b", "ops": "cache"}
# fmt: on
PRESETS = tuple(PRODUCTS)
AXES = {"gemm": "MxNxK", "gemv": "NxK", "ops": "ROWSxCOLUMNS",
        "attention": "TOKENSxCONTEXTxHEADSxSHAREDxSIZE", "quantised": "MxNxK"}
EXAMPLES = {"gemm": "256x4096x4096", "gemv": "4096x4096", "ops": "16x4096",
            "attention": "2048x2048x32x32x128", "quantised": "8x4096x4096"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says. `seconds` are per row."""

    kind: str = "gemm"
    shapes: str = ""
    preset: str = ""
    types: str = "f32"
    layout: str = ""
    threads: int = 1
    seconds: float = 1.0
    cold: bool = False
    prepack: bool = False
    cpu_time: bool = False

    def __post_init__(self) -> None:
        if self.cpu_time and self.threads != 1:
            raise ConfigError("--cpu-time counts one thread; give --threads 1")
        if self.prepack and self.kind not in ("gemm", "all"):
            raise ConfigError(f"--prepack is of gemm, not of {self.kind}")
        if self.threads < 1 or not self.seconds > 0:
            raise ConfigError(f"--threads {self.threads}, --seconds {self.seconds}: wanted at "
                              "least one thread and a positive time")


@dataclass(frozen=True, slots=True)
class Case:
    """One row. `name` is gemm, gemm_prepacked, gemv or an operator's; `flops` 0: not counted;
    `bytes`: every operand once."""

    kind: str
    name: str
    type: str
    layout: str
    shape: Shape
    flops: int
    bytes: int

    def __str__(self) -> str:
        words = (self.name, self.layout, self.type, "x".join(map(str, self.shape)))
        return " ".join(filter(None, words))


def cases_of(settings: Settings) -> list[Case]:
    """Every row, kind by kind."""
    kinds = KINDS if settings.kind == "all" else (settings.kind,)
    if settings.kind == "all" and settings.shapes:
        raise ConfigError("--shapes are those of one kind: bench gemm, gemv or ops")
    return [case for kind in kinds for type_ in types_of(kind, settings.types)
            for shape in shapes_of(kind, settings) for case in made(kind, type_, shape, settings)]


def types_of(kind: str, text: str) -> list[str]:
    if kind == "quantised":
        from .quantised import DEFAULT

        return [FORMATS.lookup(name).name for name in (DEFAULT if text == "f32" else text).split(",")]
    found = text.split(",")
    for name in found:
        if name not in TYPES:
            raise ConfigError(f"--types {name}: wanted {','.join(TYPES)}")
    return found


def shapes_of(kind: str, settings: Settings) -> list[Shape]:
    if settings.shapes:
        return [parsed(kind, text) for text in settings.shapes.split(",")]
    if kind == "attention":
        from .attention import SHAPES

        return list(SHAPES)
    if kind == "quantised":
        from .quantised import SHAPES

        return list(PRODUCTS[settings.preset]) if settings.preset else list(SHAPES)
    if kind == "ops":
        if settings.kind == "ops" and settings.preset not in ("", *ROWS):
            raise ConfigError(f"--preset {settings.preset} has products only; bench ops takes "
                              f"--preset llama7b or --shapes {AXES[kind]}")
        return list(ROWS.get(settings.preset, ROWS[DEFAULTS[kind]]))
    shapes = PRODUCTS[settings.preset or DEFAULTS[kind]]
    return list(shapes if kind == "gemm" else dict.fromkeys(shape[1:] for shape in shapes))


def parsed(kind: str, text: str) -> Shape:
    """ "64x32x16" -> (64, 32, 16)"""
    parts = text.split("x")
    right = len(parts) == len(AXES[kind].split("x")) and all(p.isdecimal() for p in parts)
    if not right or prod(map(int, parts)) == 0:
        raise ConfigError(f"--shapes {text}: wanted {AXES[kind]}, sizes from 1, such as "
                          + EXAMPLES[kind])
    return tuple(map(int, parts))


def made(kind: str, type_: str, shape: Shape, settings: Settings) -> list[Case]:
    if kind == "attention":
        from .attention import attention_case

        return [attention_case(type_, shape)]
    if kind == "quantised":
        from .quantised import quantised_case

        return [quantised_case(type_, shape)]
    size, layout = TYPES[type_].itemsize, settings.layout or LAYOUTS[kind]
    if kind == "ops":
        from .operators import OPERATORS

        return [Case(kind, name, type_, "", shape, 0, op.arrays * prod(shape) * size)
                for name, op in OPERATORS.items()]
    m, n, k = mnk(shape)
    name = PREPACKED if settings.prepack and kind == "gemm" else kind
    return [Case(kind, name, type_, layout, shape, 2 * m * n * k, size * (m * k + k * n + m * n))]


def mnk(shape: Shape) -> tuple[int, int, int]:
    """Sizes of a product; one row where the shape has only n and k."""
    m, n, k = (1, *shape)[-3:]
    return m, n, k
