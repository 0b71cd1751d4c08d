"""What the author of a refused function reads: the whole text, reviewed as part of a change.

`pytest --update-golden` writes the file anew.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_adversarial import judge

from gllm_kernels.errors import LiftError
from gllm_kernels.lift.lifter import lift

GOLDEN = Path(__file__).with_name("golden_errors.txt")
FUNCTIONS = (
    "element_first element_skipped element_half element_triangle index_mask "
    "index_square index_table index_gather index_scatter state_prefix_sum state_swap state_global "
    "sum_compensated sum_until_negative data_argmax data_store data_from_counter "
    "address_aligned address_overlap address_const call_pointer "
    "other_tail recursive part_cleared size_low_byte size_wraps size_logarithm element_row "
    "index_clamped index_weights state_in_place sum_causal index_from_float corner_apart corner_square "
    "length_eight length_ratio length_polynomial hidden_distance float_table_plain "
    "memory_local memory_frame memory_unset memory_says mean_of_three"
).split()


def version():
    gcc = shutil.which("gcc")
    shown = gcc and subprocess.run([gcc, "-dumpversion"], capture_output=True, text=True).stdout
    return shown.strip() if shown else "none"


@pytest.mark.skipif(version() != "12", reason=f"listings are those of gcc 12; here: {version()}")
def test_errors(tmp_path, golden):
    path = tmp_path / "rejected.so"
    flags = (*judge.NO_VECTORS["gcc"], *judge.PLAIN[:-1], "-g", "-O1", "-shared")
    command = ["gcc", *flags, *map(str, judge.SOURCES), "-o", str(path), "-lm"]
    subprocess.run(command, check=True)
    rows = {row.name: row.declaration for row in judge.rows()}
    assert len(FUNCTIONS) >= 40
    pages = []
    for name in FUNCTIONS:
        with pytest.raises(LiftError) as caught:
            lift(path, rows[name], verify=False)
        assert "\n  expected: " in str(caught.value) and "\n  change: " in str(caught.value), name
        pages.append(re.sub(r"\b[0-9a-f]{4,16}h?\b", "ADDR", str(caught.value), flags=re.I))
    text = "\n\n".join(pages) + "\n"
    golden(GOLDEN, text)
