"""Operators by name: the catalogue's with their stored traces, and those users register."""

from __future__ import annotations

from functools import cache

from ..lift.signature import Signature, parse
from ..lift.store import stored_trace
from ..scalar.catalog import CATALOG, ScalarOp
from ..trace.affine import as_affine
from ..trace.ir import OpTrace, Param
from ..trace.shapes import param_shape
from .operator import Operator

_registered: dict[str, Operator] = {}


def operator_named(name: str) -> Operator:
    """The operator of a catalogue row or a registration; unknown names say what is near."""
    return _registered[name] if name in _registered else _from_catalogue(name)


def register_operator(operator: Operator) -> Operator:
    """Make an operator known by its name; the latest registration of a name wins."""
    _registered[operator.name] = operator
    return operator


@cache
def _from_catalogue(name: str) -> Operator:
    row = CATALOG.lookup(name)
    return opaque_operator(row) if row.opaque else traced_operator(row, stored_trace(row.name))


def traced_operator(row: ScalarOp, trace: OpTrace, address: int = 0) -> Operator:
    """The shapes of the arrays follow from the indices of the trace."""
    arrays = trace.names("in", "out", "inout")
    shapes = tuple((name, param_shape(trace, name)) for name in arrays)
    result = _result(parse(row.declaration))
    shapes += (("return", ()),) if result else ()
    return Operator(row.name, row.symbol, trace.params, shapes, trace, row.defaults, result,
                    formula=row.formula, address=address)


def opaque_operator(row: ScalarOp, address: int = 0) -> Operator:
    """An operator that is called and never lifted; its row states the shapes."""
    signature = parse(row.declaration)
    shapes = tuple((name, tuple(map(as_affine, sizes))) for name, sizes in row.shapes)
    return Operator(row.name, row.symbol, _params(signature), shapes, None, row.defaults,
                    _result(signature), row.opaque, row.formula, row.indexes, address)


def _result(signature: Signature) -> str:
    return "" if signature.result == "void" else signature.result


def _params(signature: Signature) -> tuple[Param, ...]:
    """Roles from the declaration alone: a pointer to const is read, any other is written."""
    roles = {("pointer", True): "in", ("pointer", False): "out"}
    return tuple(Param(a.name, roles.get((a.kind, a.const), a.kind), a.ctype)
                 for a in signature.arguments)
