"""Write docs/PIPELINE.md: every stage of one operator and one fused group, as the compiler prints it.

    python tools/build_docs.py           write the page
    python tools/build_docs.py --check   exit with status 1 when the page is out of date
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "PIPELINE.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args()
    from gllm_kernels.debug import pipeline_page

    text = pipeline_page()
    if options.check:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE} ({len(text.splitlines())} lines)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
