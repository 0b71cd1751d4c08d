"""A trace as index notation.

    rms_norm(in x, in w, out out, dim m, dim n, scalar eps)
      out[i0*n + i1] = x[i0*n + i1]*t0*w[i1]                                for i0 < m, i1 < n
      where t0 = 1.0 / sqrt(sum[r0 < n](x[i0*n + r0]*x[i0*n + r0]) / float(n) + eps)

A value that is used more than once and is longer than a name gets one, below the stores.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .ir import TABLE, Op, OpTrace, Store, TraceOp, bits_double, bits_float, float_bits, reachable

NAME_FROM = 16  # a repeated text at least this long is given a name


def render(trace: OpTrace) -> str:
    """The trace as text, one line per store and one per shared value."""
    page = _Page(trace)
    params = ", ".join(f"{p.role} {p.name}" for p in trace.params)
    lines = [f"{trace.name}({params})"]
    lines += [page.store(s) for s in trace.stores]
    lines += [f"  where {name} = {text}" for name, text in page.named.items()]
    return "\n".join(lines)


def render_value(trace: OpTrace, position: int) -> str:
    """One value written out in full."""
    return _bare(_Page(trace, share=False).text(position))


@dataclass
class _Page:
    trace: OpTrace
    share: bool = True
    uses: dict[int, int] = field(default_factory=dict)
    done: dict[int, str] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        roots = [s.value for s in self.trace.stores]
        for user in reachable(self.trace.body, *roots):
            for arg in self.trace.body[user].args:
                self.uses[arg] = self.uses.get(arg, 0) + 1
        for root in roots:
            self.uses[root] = self.uses.get(root, 0) + 1

    def store(self, store: Store) -> str:
        value = _bare(self.text(store.value))
        if store.param == "return":
            return f"  return {value}"
        bound = ", ".join(f"{b} < {extent}" for b, extent in store.domain)
        left = f"  {store.param}[{store.index}] = {value}"
        return f"{left}  for {bound}" if bound else left

    def text(self, position: int) -> str:
        """The value at `position`, a name where it is shared."""
        if position not in self.done:
            full = self._form(self.trace.body[position])
            shared = self.share and self.uses.get(position, 0) > 1 and len(full) >= NAME_FROM
            self.done[position] = self._name(full) if shared else full
        return self.done[position]

    def _name(self, full: str) -> str:
        name = f"t{len(self.named)}"
        self.named[name] = _bare(full)
        return name

    def _form(self, node: TraceOp) -> str:
        args = [self.text(a) for a in node.args]
        if node.op is Op.REDUCE:
            return _reduce_form(node, args)
        if node.op in (Op.MUL, Op.DIV) and self.trace.body[node.args[1]].op is Op.MUL:
            args[1] = f"({args[1]})"  # a*(b*c) rounds differently from a*b*c; a / (b*c) differs
        form = TABLE[node.op].form
        if form[0].isalpha():  # a call encloses its operands itself
            args = [_bare(a) for a in args]
        return form.format(*args, imm=_immediate(node))


def _reduce_form(node: TraceOp, args: list[str]) -> str:
    kind, binder, extent = node.imm
    start = "" if _is_plain_start(kind, args[0]) else f" from {_bare(args[0])}"
    return f"{kind}[{binder} < {extent}{start}]({_bare(args[1])})"


def _is_plain_start(kind: str, init: str) -> bool:
    return kind in ("sum", "fma") and init in ("0.0", "0", "0L")


def _immediate(node: TraceOp) -> str:
    if node.op is Op.CONST:
        return _float_text(node.imm)
    if node.op is Op.CONST64:
        return repr(bits_double(node.imm))
    if node.op is Op.LOAD:
        return f"{node.imm[0]}[{node.imm[1]}]"
    return str(node.imm)


def _float_text(bits: int) -> str:
    """The shortest decimal that is this float32."""
    value = bits_float(bits)
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if float_bits(float(text)) == bits:
            return repr(float(text))
    return f"bits(0x{bits:08x})"


def _bare(text: str) -> str:
    """Without the outer parentheses, when they enclose the whole text."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for place, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0 and place < len(text) - 1:
            return text
    return text[1:-1]
