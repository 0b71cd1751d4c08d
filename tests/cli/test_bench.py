"""`gllm-kernels bench`: what is measured was checked, and a wrong result has no figure."""

import json
import os
import sys
from importlib.util import find_spec
from itertools import count, product
from pathlib import Path

import numpy as np
import pytest
from command import run

from gllm_kernels import ops
from gllm_kernels.cli.main import main
from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.config import config
from gllm_kernels.debug.bench import Bench, Row, Settings, Table, cases_of
from gllm_kernels.debug.bench import rows as bench_rows
from gllm_kernels.debug.bench.cases import GRID, PRODUCTS
from gllm_kernels.debug.bench.operators import OPERATORS
from gllm_kernels.debug.bench.peers import Peers, found_peers
from gllm_kernels.debug.bench.products import product_candidates
from gllm_kernels.debug.bench.plot import plotting
from gllm_kernels.debug.bench.timing import ROUNDS, Times, interleaved
from gllm_kernels.errors import ConfigError

QUICK = 1e-3
ISAS = [*(isa.name for isa in host_isas()), "scalar"]
ALONE = Peers(np, None)
BROKEN = """
import sys
sys.modules["torch"] = None
import numpy as np
from gllm_kernels import ops

def gemm(a, b, out):
    np.matmul(a, b, out=out)
    if a.shape[0] == 5:
        out[4, 2] += 1

ops.gemm = gemm
from gllm_kernels.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits read a megabyte instead of three caches."""
    monkeypatch.setattr(bench_rows, "COLD_AT_MOST", 1 << 20)


def bench(monkeypatch: pytest.MonkeyPatch, peers: Peers = ALONE, **settings: object) -> Bench:
    monkeypatch.setattr(bench_rows, "found_peers", lambda threads: peers)
    return Bench(Settings(seconds=QUICK, **settings))


def rows_of(running: Bench) -> list[Row]:
    return [running.row(case) for case in cases_of(running.settings)]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("layout", ["nn", "nt"])
@pytest.mark.parametrize(
    ("kind", "shapes", "prepack"),
    [("gemm", "3x5x7,33x18x40", False), ("gemv", "9x37", False), ("gemm", "20x33x9", True)],
)
def test_products_are_checked_and_measured(
    monkeypatch: pytest.MonkeyPatch, kind: str, shapes: str, prepack: bool, layout: str, isa: str
) -> None:
    with config(isa=isa):
        running = bench(monkeypatch, kind=kind, shapes=shapes, layout=layout, prepack=prepack,
                        types="f32,f16,bf16", cold=True)  # fmt: skip
        for row in rows_of(running):
            assert row.wrong == "" and row.ours.rounds >= ROUNDS, row
            assert set(row.peers) == ({"numpy"} if row.case.type == "f32" else set())
            assert bool(row.peak) is bool(row.read) is (isa != "scalar")
            assert ("read" in row.metrics()) is ("peak" in row.metrics()) is (isa != "scalar")


@pytest.mark.parametrize("isa", ISAS)
def test_operators_are_checked_and_measured(monkeypatch: pytest.MonkeyPatch, isa: str) -> None:
    with config(isa=isa):
        found = rows_of(bench(monkeypatch, kind="ops", shapes="3x65", types="f32,f16,bf16"))
    assert [row.wrong for row in found] == [""] * 3 * len(OPERATORS)
    assert all("GB/s" in row.metrics() for row in found)


ATTENTION = "6x6x4x2x16,1x130x4x2x16,40x40x2x2x8"


@pytest.mark.parametrize("isa", ISAS)
def test_attention_is_checked_and_measured(monkeypatch: pytest.MonkeyPatch, isa: str) -> None:
    with config(isa=isa):
        found = rows_of(bench(monkeypatch, kind="attention", shapes=ATTENTION, types="f32,f16,bf16"))
    assert [row.wrong for row in found] == [""] * 9
    for row in found:  # decoding counts bytes, the others what is multiplied
        assert bool(row.case.flops) is (row.case.shape[0] > 1)
        assert "read" not in row.metrics()  # it fits the caches


def test_torch_computes_the_same() -> None:
    pytest.importorskip("torch")
    peers = found_peers(1)
    running = Bench(Settings(kind="gemm"))
    for kind, layout in product(("gemm", "gemv", "ops", "attention"), ("nn", "nt")):
        shapes = {"gemm": "5x6x7", "gemv": "6x7", "ops": "3x64", "attention": ATTENTION}[kind]
        settings = Settings(kind=kind, types="f32,f16,bf16", layout=layout, shapes=shapes)
        running.peers = peers
        for case in cases_of(settings):
            found, want = running.candidates(case)
            tolerance = bench_rows.TOLERANCE[case.type, case.kind in bench_rows.PRODUCTS]
            assert bench_rows.fault(found["torch"], want, tolerance) == "", case


# --- wrong results --------------------------------------------------------------------------------


def wrong_gemm(change: object) -> object:
    def gemm(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        np.matmul(a, b, out=out)
        change(out)

    return gemm


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.__setitem__((2, 3), c[2, 3] + 1), ["1 of 35", "[2, 3]"]),
        (lambda c: c.__setitem__((0, 0), np.nan), ["1 of 35", "[0, 0]", "nan"]),
        (lambda c: c.__setitem__(-1, 9000), ["7 of 35", "[4, 0]", "9000"]),
    ],
)
def test_a_wrong_product_has_no_figure(
    monkeypatch: pytest.MonkeyPatch, change: object, words: list[str]
) -> None:
    monkeypatch.setattr(ops, "gemm", wrong_gemm(change))
    running = bench(monkeypatch, shapes="5x7x16")
    (row,) = rows_of(running)
    assert all(word in row.wrong for word in words), row.wrong
    assert (row.ours, row.peers, row.metrics(), row.peak) == (None, {}, {}, 0)
    line = Table(running, 20).row(row)
    assert line == f"{row.case}".ljust(20) + f"    WRONG: {row.wrong}"
    assert Table(running, 20).tail([row])[-1] == "WRONG: 1 of 1 rows: gemm nn f32 5x7x16"


def test_an_operator_that_writes_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "silu", lambda x, out: out, raising=False)
    found = rows_of(bench(monkeypatch, kind="ops", shapes="2x9"))
    wrong = {row.case.name: row.wrong for row in found}
    assert "18 of 18" in wrong.pop("silu") and set(wrong.values()) == {""}


def test_a_peer_that_is_wrong_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Numpy:
        add = staticmethod(np.subtract)
        exp, tanh = np.exp, np.tanh

    first, *_ = rows_of(running := bench(monkeypatch, Peers(Numpy, None), kind="ops", shapes="2x9"))
    assert (first.case.name, first.wrong, first.peers) == ("vec_add", "", {})
    assert first.ours and first.wrong_peers.keys() == {"numpy"}
    assert "wrong" in Table(running, 20).row(first)


def test_the_command_says_wrong_and_fails(tmp_path: Path) -> None:
    arguments = ("bench", "gemm", "--shapes", "4x3x2,5x3x2", "--seconds", QUICK, "--json",
                 tmp_path / "out.json")  # fmt: skip
    done = run("-c", BROKEN, *arguments, program=True)
    lines = done.stdout.decode().splitlines()
    assert (done.returncode, done.stderr) == (1, b"")
    assert lines[1].endswith("torch is not installed (pip install torch)")
    right, wrong = (next(n for n in lines if f"{m}x3x2" in n) for m in (4, 5))
    assert "WRONG: 1 of 15 elements, the first at [4, 2]" in wrong and "WRONG" not in right
    assert lines[-1] == "WRONG: 1 of 2 rows: gemm nn f32 5x3x2"
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert rows[0]["ours"] and rows[1]["ours"] is None and rows[1]["wrong"] in wrong


# --- settings, table, files -----------------------------------------------------------------------


def test_the_grid_is_forty_shapes() -> None:
    assert len(GRID) == len(set(GRID)) == 40
    assert {min(m, n, k) for m, n, k in GRID} >= {2, 64} and max(max(s) for s in GRID) <= 4097
    for preset in PRODUCTS:
        for kind in ("gemm", "gemv", "all"):
            assert len(cases_of(Settings(kind=kind, preset=preset))) > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["kind", "--help"]),
        (("model",), ["model", "gemm"]),
        (("gemm", "--shapes", "4x4"), ["--shapes 4x4", "MxNxK"]),
        (("gemv", "--shapes", "4x4x4"), ["--shapes 4x4x4", "NxK"]),
        (("ops", "--shapes", "0x4"), ["--shapes 0x4", "ROWSxCOLUMNS"]),
        (("gemm", "--shapes", "4x-4x4"), ["--shapes 4x-4x4"]),
        (("attention", "--shapes", "4x4x4"), ["--shapes 4x4x4", "TOKENSxCONTEXT"]),
        (("attention", "--shapes", "3x4x2x2x8"), ["3x4x2x2x8", "TOKENS is 1 or CONTEXT"]),
        (("attention", "--shapes", "4x4x3x2x8"), ["SHARED divides HEADS"]),
        (("gemm", "--types", "f32,f64"), ["--types f64", "bf16"]),
        (("ops", "--preset", "grid"), ["--preset grid", "llama7b"]),
        (("all", "--shapes", "4x4x4"), ["--shapes", "gemm"]),
        (("gemv", "--prepack"), ["--prepack", "gemm"]),
        (("gemm", "--threads", "0"), ["--threads 0"]),
        (("gemm", "--threads", "2", "--cpu-time"), ["--cpu-time", "--threads 1"]),
        (("gemm", "--seconds", "0"), ["--seconds 0"]),
        (("gemm", "--isa", "avx1024"), ["--isa", "avx512"]),
        (("ops", "--plot", "x.png"), ["--plot", "here: ops on"]),
        (("gemm", "--isa", "scalar", "--plot", "x.png"), ["gemm on scalar"]),
        (("gemm", "--isa", "avx2", "--plot", "/no/such/file"), ["/no/such/file", "check the path"]),
        (("gemm", "--json", "/no/such/file"), ["/no/such/file", "check the path"]),
    ],
)
def test_what_bench_refuses(
    arguments: tuple[str, ...], words: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
        if not host_isas():
            pytest.skip("no vector instruction set")
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert main(["bench", *arguments]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == "" and all(word in line for word in words), line


def test_json_and_picture_of_what_the_table_says(tmp_path: Path) -> None:
    file, picture = tmp_path / "out.json", tmp_path / "roof.png"
    drawn = ("--plot", picture) if host_isas() and find_spec("matplotlib") else ()
    done = run("bench", "gemm", "--shapes", "8x8x8,1x40x9", "--seconds", QUICK, "--json", file,
               *drawn, compiled=True, env={"GLLM_ISA": ""})  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert not drawn or picture.read_bytes()[1:4] == b"PNG"
    found = json.loads(file.read_text())
    assert found.keys() == {"version", "date", "cpu", "isa", "peers", "settings", "rows",
                            "geometric_mean"}  # fmt: skip
    assert found["settings"]["shapes"] == "8x8x8,1x40x9"
    assert found["peers"]["numpy"] == np.__version__
    for row in found["rows"]:
        assert row.keys() == {
            "name", "type", "layout", "shape", "flops", "bytes", "cold", "threads", "wrong", "ours",
            "one_thread", "peers", "wrong_peers", "peak", "read", "metrics", "met", "goals",
        }  # fmt: skip
        assert row["ours"].keys() == {"best_s", "median_s", "rounds", "rate"}
        fastest = min(peer["best_s"] for peer in row["peers"].values())
        assert row["metrics"]["ratio"] == pytest.approx(fastest / row["ours"]["best_s"])
        assert row["ours"]["rate"] == pytest.approx(row["flops"] / row["ours"]["best_s"])
    ratios = [row["metrics"]["ratio"] for row in found["rows"]]
    assert found["geometric_mean"] == pytest.approx(np.prod(ratios) ** 0.5)
    assert f"geometric mean {found['geometric_mean']:.2f} over 2 rows" in done.stdout.decode()


def test_a_picture_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match="pip install matplotlib"):
        plotting()


def row(monkeypatch: pytest.MonkeyPatch, seconds: float, peer: float) -> Row:
    """1024^3 f32, one thread, at a peak of 100 GFLOP/s."""
    (case,) = cases_of(Settings(shapes="1024x1024x1024"))
    times = {"numpy": Times(peer, peer, 3)}
    return Row(case, "avx512", False, 1, "", Times(seconds, seconds, 3), times, {}, 100e9, 30e9)


def test_goals_are_met_or_missed_by_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    table, perfect = Table(bench(monkeypatch), 20), 2 * 1024**3 / 100e9
    good, slow = row(monkeypatch, perfect, perfect), row(monkeypatch, 2 * perfect, perfect)
    assert table.row(good).endswith("  met") and good.metrics()["peak"] == pytest.approx(1)
    assert table.row(slow).endswith("  missed: peak 50.0% of 94.0%, ratio 0.5 of 1")
    assert table.tail([good, slow]) == [
        "ours / best peer: geometric mean 0.71 over 2 rows, lowest 0.50 "
        "(gemm nn f32 1024x1024x1024)",
        "goals: 1 of 2 rows met",
    ]


@pytest.mark.parametrize(("one", "said"), [(2.0, "met"), (1.5, "missed: one 1.5 of 1.9")])
def test_two_threads_against_one(monkeypatch: pytest.MonkeyPatch, one: float, said: str) -> None:
    (case,) = cases_of(Settings(shapes="2048x2048x2048", threads=2))
    of_one = Times(one, one, 3)
    row = Row(case, "avx512", False, 2, "", Times(1.0, 1.0, 3), {}, {}, 100e9, 30e9, of_one)
    assert Table(bench(monkeypatch), 30).row(row).endswith(f"  {said}")
    (measured,) = rows_of(bench(monkeypatch, shapes="64x64x64", threads=2))
    assert measured.one.rounds >= ROUNDS and measured.metrics()["one"] > 0
    (alone,) = rows_of(bench(monkeypatch, shapes="64x64x64"))
    assert alone.one is None and "one" not in alone.metrics()


def test_cold_weights_rotate(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(ops, "gemm", lambda a, b, out: seen.append(b.ctypes.data))
    (case,) = cases_of(Settings(shapes="4x8x8"))
    found, _ = product_candidates(case, ALONE, cold=3 * 8 * 8 * 4)
    for _ in range(6):
        found["ours"].run()
    assert len(set(seen[:3])) == 3 and seen[:3] == seen[3:]


def test_candidates_take_turns_in_alternating_order() -> None:
    calls, clock = [], count()
    runs = {name: (lambda n=name: calls.append(n)) for name in "abc"}
    times = interleaved(runs, QUICK, lambda: float(next(clock)))
    compact = [a for a, b in zip(calls, [*calls[1:], ""], strict=True) if a != b]
    assert {t.rounds for t in times.values()} == {next(iter(times.values())).rounds}
    assert compact[3:8] == list("abcba") and times["a"].best > 0
