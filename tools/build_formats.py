"""Describe the weight formats of the package from the committed decoders and store the result.

    python tools/build_formats.py [--out FILE]

Every description is compared with its decoder bit for bit before it is written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gllm_kernels.quant.lift import lift_decoder
from gllm_kernels.quant.store import STORED, write
from gllm_kernels.scalar.formats import OBJECT, ROWS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=STORED)
    out = parser.parse_args().out
    descs = {row.name: lift_decoder(OBJECT, row.declaration, row.size) for row in ROWS}
    out.write_bytes(write(descs))
    print(f"{out}: {len(descs)} descriptions, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
