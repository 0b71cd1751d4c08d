"""Pages that print the program are current, and what they link to exists."""

import re
from pathlib import Path

import pytest

from gllm_kernels.config import config
from gllm_kernels.debug import pipeline_page

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("isa", ("avx2", "scalar"))
def test_pipeline_page_is_what_the_compiler_prints_now(isa):
    """The page is about one profile, whatever this machine or its cap is."""
    with config(isa=isa):
        text = pipeline_page()
    assert (ROOT / "docs" / "PIPELINE.md").read_text(encoding="utf-8") == text, (
        "docs/PIPELINE.md is out of date: run `python tools/build_docs.py` and review the change")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_named_files_exist(page):
    text = re.sub(r"(?s)```.*?```", "", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    commands = re.findall(r"python ((?:tools|bench)/\w+\.py)", text)
    missing = [n for n in links if not (page.parent / n).exists()]
    missing += [n for n in commands if not (ROOT / n).exists()]
    assert not missing


def test_the_project_speaks_of_itself_alone():
    """No path of a machine and no folder outside the repository in anything that is shipped."""
    files = [p for folder in ("src", "docs", "tools", "bench") for p in (ROOT / folder).rglob("*")
             if p.suffix in (".py", ".md", ".c", ".h", ".txt", ".toml")]
    for path in [*files, ROOT / "README.md"]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\.\./shared|/work/|/opt/gk|/root/", text), path
