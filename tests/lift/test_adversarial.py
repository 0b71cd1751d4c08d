"""No wrong trace comes out, without help from the differential test; true operators lift.

Each labelled function is judged here at two of the builds, another two for the next function;
`tools/judge.py` judges all at all of them.
"""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "judge.py"
spec = importlib.util.spec_from_file_location("judge", TOOL)
judge = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = judge  # dataclasses look their module up there
spec.loader.exec_module(judge)
BUILDS = judge.builds()
PAIRS = [
    (row, build)
    for number, row in enumerate(judge.rows())
    for build in dict.fromkeys(BUILDS[(number + k * 3) % len(BUILDS)] for k in range(2) if BUILDS)
]
CASES = [pytest.param(row, build, id=f"{row.name}-{''.join(build)}") for row, build in PAIRS]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    wanted = {build: [row for row, at in PAIRS if at == build] for build in BUILDS}
    return judge.compiled(tmp_path_factory.mktemp("adversarial"), wanted)


def test_every_function_has_a_label():
    text = "".join(path.read_text() for path in judge.SOURCES)
    defined = re.findall(r"^(?:extern.*?; )?(?:void|float|int64_t) (\w+)\(", text, re.MULTILINE)
    assert defined == [row.name for row in judge.rows()]
    assert len(set(defined)) == len(defined) >= 300


@pytest.mark.skipif(not BUILDS, reason="compiles C: neither gcc nor clang here")
@pytest.mark.parametrize(("row", "build"), CASES)
def test_label(row, build, libraries):
    mark, text = judge.judged(libraries[build], row)
    assert [f for f in judge.faults(row, build, mark) if f != "elsewhere"] == [], text
