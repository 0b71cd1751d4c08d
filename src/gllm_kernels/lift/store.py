"""Traces as data: the catalogue's are shipped beside its object, so importing lifts nothing.

    {"silu": {"key": sha256, "declaration": ..., "trace": {...}}, ...}

The key covers what a lift depends on: the code, the constants and the functions it refers to, the
declaration, and the version of the lifter. `tools/build_traces.py` writes the file; a test lifts
everything again and compares.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from ..errors import FormatError, UnsupportedOpError
from ..scalar.loader import OBJECTS
from ..trace.affine import Affine
from ..trace.ir import INDICES, Op, OpTrace, Param, Store, TraceOp
from ..trace.spec import check

LIFTER_VERSION = 9  # raised when the same code may lift to another trace
TRACES = OBJECTS / "traces_x86_64.json"
Json = Any


@cache
def stored_traces() -> dict[str, OpTrace]:
    """The traces of the catalogue by operator name."""
    try:
        entries = json.loads(TRACES.read_text(encoding="utf-8"))
        return {name: trace_of(entry["trace"]) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError) as failure:
        raise FormatError(
            f"{TRACES}: cannot be read as stored traces: {failure!r}; "
            "write it again with `python tools/build_traces.py`"
        ) from failure


def stored_trace(name: str) -> OpTrace:
    """The trace of one operator of the catalogue."""
    traces = stored_traces()
    if name not in traces:
        raise UnsupportedOpError(
            f"no stored trace of {name!r}; stored are {', '.join(sorted(traces))}. An operator "
            "that was added is stored by `python tools/build_traces.py`"
        )
    return traces[name]


def json_of(trace: OpTrace) -> Json:
    """The trace as lists, numbers and strings."""
    return {
        "name": trace.name,
        "params": [[p.name, p.role, p.ctype] for p in trace.params],
        "body": [[n.op.value, list(n.args), _json_immediate(n)] for n in trace.body],
        "stores": [
            [s.param, _json_affine(s.index), s.value, [[b, _json_affine(e)] for b, e in s.domain]]
            for s in trace.stores
        ],
        "extent_limit": trace.extent_limit,
    }


def trace_of(data: Json) -> OpTrace:
    """The inverse of `json_of`, checked."""
    stores = tuple(
        Store(param, _affine(index), value, tuple((b, _affine(e)) for b, e in domain))
        for param, index, value, domain in data["stores"]
    )
    params = tuple(Param(*row) for row in data["params"])
    body = tuple(_node(*row) for row in data["body"])
    return check(OpTrace(data["name"], params, body, stores, data["extent_limit"]))


def _json_affine(index: Affine) -> Json:
    return [[coef, list(mono)] for coef, mono in index.terms]


def _affine(rows: Json) -> Affine:
    return Affine(tuple((coef, tuple(mono)) for coef, mono in rows))


def _json_immediate(node: TraceOp) -> Json:
    if node.op is Op.LOAD:
        return [node.imm[0], _json_affine(node.imm[1])]
    if node.op is Op.REDUCE:
        return [*node.imm[:2], _json_affine(node.imm[2])]
    return _json_affine(node.imm) if node.op in INDICES else node.imm


def _node(name: str, args: list[int], imm: Json) -> TraceOp:
    op = Op(name)
    if op is Op.LOAD:
        imm = imm[0], _affine(imm[1])
    elif op is Op.REDUCE:
        imm = imm[0], imm[1], _affine(imm[2])
    elif op in INDICES:
        imm = _affine(imm)
    return TraceOp(op, tuple(args), imm)
