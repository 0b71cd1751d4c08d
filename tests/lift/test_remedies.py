"""Every refusal says what is allowed and what to change, and shows the author's own line."""

import ast
import re
import shutil
from pathlib import Path

import pytest

import gllm_kernels as gk
from gllm_kernels.lift import remedies

FOLDER = Path(remedies.__file__).parent
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))),
                                    reason="compiles C: no compiler here")  # fmt: skip


def refusals():
    """(place, text with a 7 for each value, names of what is given with it)."""
    for path in sorted(FOLDER.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refusal":
                several = any(isinstance(a, ast.Starred) for a in node.args)
                given = {k.arg for k in node.keywords} | set(("what", "expected", "change")[:len(node.args)])
                given |= {"expected", "change"} if several else set()
                yield f"{path.name}:{node.lineno}", _text(node.args[0]), given


def _text(node):
    if isinstance(node, ast.JoinedStr):
        return "".join(v.value if isinstance(v, ast.Constant) else "7" for v in node.values)
    if isinstance(node, ast.BinOp):
        return (_text(node.left) or "") + (_text(node.right) or "")
    return node.value if isinstance(node, ast.Constant) else None


def test_every_refusal_says_what_is_allowed_and_what_to_change():
    silent = []
    for place, text, given in refusals():
        known = remedies.remedy(text) if text is not None else ("", "")
        for part, word in zip(known, ("expected", "change"), strict=True):
            if not part and word not in given:
                silent.append(f"{place}: no {word} for {text!r}")
    assert not silent


@needs_compiler
def test_the_line_of_the_source_is_shown_with_the_names_of_its_author():
    text = "#include <stddef.h>\nvoid f(const float *x, float *out, size_t n, size_t m) {\n" \
           "  for (size_t i = 0; i < n; i++)\n    for (size_t j = 0; j < m; j++)\n" \
           "      out[i*m + j] = i == 7 ? x[i*m + j] : 0;\n}\n"  # fmt: skip
    with pytest.raises(gk.LiftError) as caught:
        gk.compile_c(text, "void f(const float *x, float *out, size_t n, size_t m)")
    lines = str(caught.value).splitlines()
    assert lines[0] == "f: a branch on a loop counter: i compared with 7"
    assert lines[1].startswith("  source: op.c:5:  out[i*m + j] = i == 7 ?")
    assert re.fullmatch(r"  known: n = \d+, m = \d+; inside the loops over i = 0.*", lines[-1])


@needs_compiler
def test_another_formula_is_printed():
    text = "#include <stddef.h>\nvoid f(const float *x, float *out, size_t n) {\n" \
           "  for (size_t i = 0; i < n; i++) out[i] = n > 40 ? x[i] : 2 * x[i]; }\n"
    with pytest.raises(gk.LiftError, match=r"at n = 41: .* which is: out\[i0\] = x\[i0\] \+ x\[i0\]"):
        gk.compile_c(text, "void f(const float *x, float *out, size_t n)")
