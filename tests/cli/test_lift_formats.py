"""`gllm-kernels lift formats`: every format, described and measured."""

import pytest

from gllm_kernels import config
from gllm_kernels.cli.main import main
from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.debug import formats


@pytest.mark.skipif(not host_isas(), reason="no vectors")
def test_the_table(monkeypatch, capsys):
    rows = tuple(row for row in formats.ROWS if row.name in ("Q4_K", "SQUEEZE", "INT1"))
    for name, value in (("ROWS", rows), ("ROUNDS", 1), ("REPEATS", 2), ("VALUES", 64)):
        monkeypatch.setattr(formats, name, value)
    with config(isa=host_isas()[0].name):
        assert main(["lift", "formats"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["format", "values", "bytes", "groups", "q"]
    found = {line.split()[0]: line.split()[1:5] for line in lines}
    assert found == {"Q4_K": ["256", "144", "8", "0..15"], "SQUEEZE": ["256", "130", "1", "0..7"],
                     "INT1": ["8", "1", "1", "-1..1"]}
    assert all(float(x) > 0 for line in lines for x in line.split()[5:])


def test_without_vectors(capsys):
    with config(isa="scalar"):
        assert main(["lift", "formats"]) != 0
    assert "isa=scalar" in capsys.readouterr().err


def test_no_declaration_beside_it(capsys):
    assert main(["lift", "formats", "void f(void)"]) != 0
    assert "takes no DECLARATION" in capsys.readouterr().err
