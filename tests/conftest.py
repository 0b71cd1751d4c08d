import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("GLLM_SPEC", "1")  # every level is checked between stages
os.environ["GLLM_CACHE"] = "off"  # every lift is a lift
HERE = Path(__file__).parent
# shared test modules (traces, guard, blocks) are imported by name from any test folder
sys.path[:0] = [str(HERE), str(HERE / "fusion")]


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write golden files anew")


@pytest.fixture
def golden(request):
    """golden(path, text): the file holds the text; `--update-golden` writes it."""

    def compare(path, text):
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.read_text() == text

    return compare
