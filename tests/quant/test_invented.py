"""Formats that nobody made: described, or refused with a reason; decoded with the bits of the function."""

import subprocess
from shutil import which

import numpy as np
import pytest
from invented import HEAD, invented

from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.errors import LiftError
from gllm_kernels.lift.lifter import subject_of
from gllm_kernels.lift.signature import parse
from gllm_kernels.ops.weights import loaded
from gllm_kernels.quant.lift import lift_decoder, samples
from gllm_kernels.scalar.formats import ARGUMENTS, call_each
from gllm_kernels.scalar.loader import OBJECTS

COUNT = 80
FLAGS = ("-fno-tree-vectorize", "-fno-tree-slp-vectorize", "-ffp-contract=off", "-fPIC", "-shared",
         "-fno-jump-tables", "-I", str(OBJECTS.parent / "blocks"))


@pytest.mark.skipif(which("gcc") is None, reason="no C compiler")
@pytest.mark.parametrize(("first", "level"), [(0, "-O1"), (1000, "-O2"), (2000, "-O3")])
def test_invented_formats(tmp_path, first, level):
    made = [invented(first + n, n) for n in range(COUNT)]
    path = tmp_path / "invented.so"
    text = HEAD + "\n".join(text for text, _ in made)
    subprocess.run(["gcc", level, *FLAGS, "-x", "c", "-", "-o", str(path)], input=text, text=True, check=True)
    refused = []
    for n, (text, size) in enumerate(made):
        declaration = f"void decode_x{n}{ARGUMENTS}"
        try:
            desc = lift_decoder(path, declaration, size)
        except LiftError as failure:
            assert "report" not in str(failure), f"seed {first + n}: {failure}\n{text}"
            refused.append(f"seed {first + n}: {str(failure).splitlines()[0]}")
            continue
        address, keep = subject_of(path, parse(declaration)).address()
        blocks = samples(size, 64)
        want = np.empty((64, len(desc.codes)), np.float32)
        call_each(address, blocks, want)
        for isa in host_isas():
            got = np.empty_like(want)
            loaded(desc, isa).decode(blocks, got)
            same = (got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))
            assert same.all(), f"seed {first + n} on {isa.name}:\n{text}\n{desc}"
        del keep
    print(*refused, sep="\n")
    assert len(refused) <= COUNT // 10
