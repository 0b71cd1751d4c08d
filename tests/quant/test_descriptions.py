"""Descriptions: stored equals fresh, the same for every compiler, and bit for bit the decoder."""

import shutil
import subprocess
from pathlib import Path

import pytest
from weight_blocks import bits, blocks_of, decode

from gllm_kernels.cli.main import main
from gllm_kernels.config import config
from gllm_kernels.errors import LiftError
from gllm_kernels.lift import cache
from gllm_kernels.quant.desc import checked, decoded
from gllm_kernels.quant.lift import lift_decoder
from gllm_kernels.quant.store import desc_of, json_of, stored, stored_desc
from gllm_kernels.scalar.formats import ARGUMENTS, FORMATS, OBJECT, ROWS, decoders
from gllm_kernels.scalar.loader import OBJECTS

HERE = Path(__file__).parent
EVERY = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
BLOCKS = OBJECTS.parent / "blocks"
PLAIN = ("-fPIC", "-shared", "-ffp-contract=off", "-fno-math-errno", "-fno-jump-tables")
SCALAR = {"gcc": ("-fno-tree-vectorize", "-fno-tree-slp-vectorize"),
          "clang": ("-fno-vectorize", "-fno-slp-vectorize")}  # fmt: skip
BUILDS = [(cc, flag) for cc, levels in (("gcc", "123"), ("clang", "12")) for flag in
          (("-O" + n,) for n in levels)] + [("gcc", ("-O2", "-mavx2", "-mf16c"))]  # fmt: skip


def compiled(path: Path, text: str, cc: str = "gcc", flags: tuple[str, ...] = ("-O1",)) -> Path:
    if shutil.which(cc) is None:
        pytest.skip(f"no {cc}")
    command = [cc, *flags, *SCALAR[cc], *PLAIN, "-I", str(BLOCKS), "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=text, text=True, check=True)
    return path


@EVERY
def test_the_stored_description_is_that_of_the_decoder(row):
    fresh = lift_decoder(OBJECT, row.declaration, row.size)
    assert stored_desc(row.name) == fresh, "run tools/build_formats.py"
    assert checked(desc_of(json_of(fresh))) == fresh
    assert len(fresh.codes) == row.values and list(stored()) == [r.name for r in ROWS]


@EVERY
def test_a_description_has_the_bits_of_its_decoder(row):
    blocks = blocks_of(row)
    assert (bits(decoded(stored_desc(row.name), blocks)) == bits(decode(row, blocks))).all()


@pytest.mark.parametrize(("cc", "flags"), BUILDS, ids=lambda x: "".join(x))
def test_every_compiler_gives_the_same_description(tmp_path, cc, flags):
    sources = "".join(f'#include "{p.name}"\n' for p in sorted(BLOCKS.glob("*.c")))
    path = compiled(tmp_path / "blocks.so", sources, cc, flags)
    for row in ROWS:
        assert lift_decoder(path, row.declaration, row.size) == stored_desc(row.name), row.name


def test_from_code_in_memory():
    row = FORMATS.lookup("IQ4_XS")
    assert lift_decoder(decoders(), row.declaration, row.size) == stored_desc("IQ4_XS")


def test_the_command_line_prints_it(capsys):
    assert main(["lift", str(OBJECT), FORMATS.lookup("Q6_K").declaration]) == 0
    shown = capsys.readouterr().out
    assert str(stored_desc("Q6_K")) in shown and "every bit equal in 48 blocks" in shown


def test_what_is_printed(golden):
    names = ("Q4_K", "Q6_K", "IQ2_XS", "IQ4_NL", "MXFP4", "FP8_E4M3", "AWQ4", "SQUEEZE", "INT1")
    text = "\n\n".join(f"{name}\n{stored_desc(name)}" for name in names)
    golden(HERE / "golden" / "descriptions.txt", text + "\n")


# ---- what has no description

HEAD = '#include "block.h"\n#include <math.h>\n'
REFUSED = {
    "no integer of a few bits": "for (int i = 0; i < 4; i++) out[i] = (float)(int)u16(block + 2 * i);",
    "two codes in one value": "for (int i = 0; i < 4; i++) out[i] = real(u32(block + 8)) * block[i]"
    " + real(u32(block + 12)) * block[i + 4];",
    "in lanes 2..3 of 4": "for (int i = 0; i < 4; i++) out[i] = i < 2 ? (float)block[i]"
    " : sqrtf(real(u32(block + 4 * i)));",
    "a value without a code": "for (int i = 0; i < 4; i++) out[i] = real(u32(block + 4 * i));",
    "round in another order": "for (int i = 0; i < 4; i++)"
    " out[i] = real(u32(block)) * ((float)block[8] * 0.3f * (float)block[4 + i]);",
    "of a block of 16 bytes": "for (int i = 0; i < 4; i++) out[i] = (float)block[13 + i];",
    "bytes -1 to 0 of a block": "out[0] = (float)block[-1];",
    "written one after the other": "for (int i = 0; i < 4; i++) out[2 * i] = (float)block[i];",
    "beyond the 16 bytes": "for (int i = 0; i < 4; i++)"
    " out[i] = real(u32(block + 4 + 4 * (block[i] & 3)));",
    "data decide how often a loop runs": "int n = block[0];"
    " for (int i = 0; i < n; i++) out[i] = 1.0f;",
    "a load from a global variable": "static uint8_t table[256]; static int calls; calls++; table[3] = calls;"
    " for (int i = 0; i < 4; i++) out[i] = (float)table[block[i]];",
    "which may be 0": "for (int i = 0; i < 4; i++)"
    " out[i] = (float)(block[i] & 7) * (block[i] & 8 ? -1.0f : 1.0f);",
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_a_refusal_names_the_reason_and_the_lanes(tmp_path, reason):
    text = f"{HEAD}void odd{ARGUMENTS} {{ {REFUSED[reason]} }}"
    path = compiled(tmp_path / "odd.so", text)
    with pytest.raises(LiftError, match=reason):
        lift_decoder(path, f"void odd{ARGUMENTS}", 16)


@pytest.mark.parametrize("declaration", [
    "void f(const uint8_t *block, float *out, size_t n)", "void f(const float *block, float *out)",
    "void f(uint8_t *block, float *out)", "void f(const uint8_t *block, const float *out)",
])  # fmt: skip
def test_another_declaration_is_no_decoder(declaration):
    with pytest.raises(LiftError, match=r"const uint8_t \*block"):
        lift_decoder(b"\xc3", declaration, 16)


def test_sizes_of_blocks():
    with pytest.raises(LiftError, match="wanted 1 to"):
        lift_decoder(OBJECT, FORMATS.lookup("Q4_0").declaration, 0)
    with pytest.raises(LiftError, match="of a block of 17 bytes"):
        lift_decoder(OBJECT, FORMATS.lookup("Q4_0").declaration, 17)


# ---- kept descriptions


def test_a_kept_description_is_read_and_a_damaged_one_is_not(tmp_path, monkeypatch):
    row = FORMATS.lookup("Q4_K")
    with config(cache=str(tmp_path / "kept")):
        fresh = lift_decoder(OBJECT, row.declaration, row.size)
        (entry,) = (tmp_path / "kept").iterdir()
        with monkeypatch.context() as patch:
            patch.setattr("gllm_kernels.quant.lift.analyse", None)  # not lifted again
            assert lift_decoder(OBJECT, row.declaration, row.size) == fresh
        text = entry.read_text()
        for old, new in (('"size":144', '"size":3'), ("[[0,4,0]]", "[[2,4,0]]"), ("]", "")):
            entry.write_text(text.replace(old, new, 1))
            with pytest.warns(RuntimeWarning, match="ignored"):
                assert lift_decoder(OBJECT, row.declaration, row.size) == fresh
        assert len(list((tmp_path / "kept").iterdir())) == 1 and cache.MOST_ENTRIES


def test_a_description_from_outside_stays_in_its_block():
    data = json_of(stored_desc("SQUEEZE"))
    for change in ({"size": 129}, {"lanes": [[0, 9999]] * 256}, {"groups": [1] * 256}, {"scales": []},
                   {"levels": [[], -4]}, {"groups": [0]}):  # fmt: skip
        with pytest.raises((ValueError, IndexError)):
            checked(desc_of(data | change))
