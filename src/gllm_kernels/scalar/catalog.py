"""The operators: one row each, beside the C function that defines it.

Adding an operator is a C function `scalar_<name>` in one of the sources here and a row below. The
declaration is the whole signature: `const float *` is an input, `float *` an output or in/out,
`size_t` a dimension, `float` a scalar, and the return type a result. Nothing else describes it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..errors import UnsupportedOpError

PREFIX = "scalar_"


@dataclass(frozen=True, slots=True)
class ScalarOp:
    """One row. `opaque` holds the reason when the operator is called and never lifted."""

    name: str
    declaration: str
    formula: str
    opaque: str = ""
    defaults: tuple[tuple[str, float], ...] = ()
    # of an opaque one, since nothing else tells: array shapes, and what an index array stays below
    shapes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    indexes: tuple[tuple[str, str], ...] = ()

    @property
    def symbol(self) -> str:
        """The name of the C function: `scalar_silu` for silu."""
        return PREFIX + self.name

    def __str__(self) -> str:
        mark = f"   [opaque: {self.opaque}]" if self.opaque else ""
        return f"{self.declaration};   {self.formula}{mark}"


@dataclass(slots=True)
class ScalarOpRegistry:
    """Operators by name, in the order they were registered."""

    rows: dict[str, ScalarOp] = field(default_factory=dict)

    def register(self, op: ScalarOp) -> ScalarOp:
        """Add a row; a second row of the same name must be the same row."""
        if self.rows.setdefault(op.name, op) != op:
            raise UnsupportedOpError(
                f"operator {op.name!r} is already registered as `{self.rows[op.name].declaration}`"
                f"; give `{op.declaration}` another name"
            )
        return op

    def lookup(self, name: str) -> ScalarOp:
        """The row of `name`, or an error that names the nearest spelling."""
        if name in self.rows:
            return self.rows[name]
        near = difflib.get_close_matches(name, self.rows, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(self.rows))}"
        raise UnsupportedOpError(f"no operator {name!r}; {hint}")

    def __iter__(self) -> Iterator[ScalarOp]:
        return iter(self.rows.values())

    def __contains__(self, name: object) -> bool:
        return name in self.rows

    def __len__(self) -> int:
        return len(self.rows)


def _signature(name: str, arguments: str, result: str = "void") -> str:
    return f"{result} {PREFIX}{name}({arguments})"


_VEC3 = "const float *a, const float *b, float *out, size_t n"
_MAP = "const float *x, float *out, size_t n"
_ROPE = "const float *x, const float *cos, const float *sin, float *out, size_t t, size_t h, "
_MNK = "size_t m, size_t n, size_t k"
_GEMM = f"const float *a, const float *b, float *c, {_MNK}"
_EPS = (("eps", 1e-5),)


def _row(
    name: str,
    arguments: str,
    formula: str,
    result: str = "void",
    opaque: str = "",
    defaults: tuple[tuple[str, float], ...] = (),
    **more: tuple,
) -> ScalarOp:
    return ScalarOp(name, _signature(name, arguments, result), formula, opaque, defaults, **more)


# fmt: off
ROWS: tuple[ScalarOp, ...] = (
    _row("vec_add", _VEC3, "out[i] = a[i] + b[i]"),
    _row("vec_sub", _VEC3, "out[i] = a[i] - b[i]"),
    _row("vec_mul", _VEC3, "out[i] = a[i] * b[i]"),
    _row("vec_scale", "float *x, float s, size_t n", "x[i] = x[i] * s"),
    _row("vec_axpy", "float a, const float *x, float *y, size_t n", "y[i] = y[i] + a * x[i]"),
    _row("vec_dot", "const float *a, const float *b, size_t n", "sum[i<n](a[i] * b[i])", "float"),
    _row("vec_sum", "const float *x, size_t n", "sum[i<n](x[i])", "float"),
    _row("vec_max", "const float *x, size_t n", "max[i<n](x[i])", "float"),
    _row("vec_sum_squares", "const float *x, size_t n", "sum[i<n](x[i] * x[i])", "float"),
    _row("silu", _MAP, "out[i] = x[i] / (1 + exp(-x[i]))"),
    _row("gelu", _MAP, "out[i] = x[i]/2 * (1 + tanh(sqrt(2/pi) * (x[i] + 0.044715 * x[i]^3)))"),
    _row("relu", _MAP, "out[i] = max(0, x[i])"),
    _row("tanh", _MAP, "out[i] = tanh(x[i])"),
    _row("exp", _MAP, "out[i] = exp(x[i])"),
    _row("swiglu", "const float *gate, const float *up, float *out, size_t n",
         "out[i] = gate[i] / (1 + exp(-gate[i])) * up[i]"),
    _row("softmax", "const float *x, float *out, size_t m, size_t n",
         "out[i,j] = exp(x[i,j] - max[k<n](x[i,k])) / sum[k<n](exp(x[i,k] - max[l<n](x[i,l])))"),
    _row("rms_norm", "const float *x, const float *w, float *out, size_t m, size_t n, float eps",
         "out[i,j] = x[i,j] * w[j] / sqrt(sum[k<n](x[i,k]^2) / n + eps)", defaults=_EPS),
    _row("layer_norm", "const float *x, const float *w, const float *b, float *out, "
         "size_t m, size_t n, float eps",
         "out[i,j] = (x[i,j] - mean) / sqrt(var + eps) * w[j] + b[j]", defaults=_EPS),
    _row("rope", _ROPE + "size_t d",
         "out[i,a,j] = x[i,a,j]*cos[i,j] - x[i,a,j+d]*sin[i,j], out[i,a,j+d] = the turned other"),
    _row("rope_interleaved", _ROPE + "size_t d", "rope on pairs (2j, 2j+1)"),
    _row("rope_with_pos", _ROPE + "size_t d, size_t pos", "rope with table rows pos+i"),
    _row("rope_with_pos_interleaved", _ROPE + "size_t d, size_t pos",
         "rope_interleaved with table rows pos+i"),
    _row("gemv", "const float *a, const float *x, float *y, size_t m, size_t n",
         "y[i] = sum[j<n](a[i,j] * x[j])"),
    _row("gemm", _GEMM, "c[i,j] = sum[p<k](a[i,p] * b[p,j])"),
    _row("gemm_bt", _GEMM, "c[i,j] = sum[p<k](a[i,p] * b[j,p])"),
    _row("gemm_bias", f"const float *a, const float *b, const float *bias, float *c, {_MNK}",
         "c[i,j] = sum[p<k](a[i,p] * b[p,j]) + bias[j]"),
    _row("gather", "const float *table, const int32_t *rows, float *out, size_t t, size_t n",
         "out[i,j] = table[rows[i],j]", opaque="its addresses depend on data",
         shapes=(("table", ("v", "n")), ("rows", ("t",)), ("out", ("t", "n"))),
         indexes=(("rows", "v"),)),
    _row("argmax", "const float *x, size_t n", "the lowest i with x[i] = max(x)", "int64_t",
         opaque="its result is an index, which depends on data",
         shapes=(("x", ("n",)), ("return", ()))),
)
# fmt: on


def registry(rows: Iterable[ScalarOp] = ROWS) -> ScalarOpRegistry:
    """A new registry that holds `rows`, by default the catalogue."""
    made = ScalarOpRegistry()
    for row in rows:
        made.register(row)
    return made


CATALOG = registry()
