"""Lift the catalogue from the committed object and store the traces beside it.

    python tools/build_traces.py [--out FILE]

Every trace is accepted and verified bit for bit before it is written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from gllm_kernels.lift.lifter import catalogue_entries
from gllm_kernels.lift.store import TRACES


def text_of(entries: dict[str, dict]) -> str:
    """One line per operator, so that a change shows which one changed."""
    lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=TRACES)
    out = parser.parse_args().out
    entries = catalogue_entries()
    out.write_text(text_of(entries), encoding="utf-8")
    print(f"{out}: {len(entries)} traces, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
