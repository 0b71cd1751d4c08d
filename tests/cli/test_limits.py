"""The loops that measure the machine hold what they count."""

import pytest
from iced_x86 import Decoder, Mnemonic

from gllm_kernels.codegen.isa.avx2 import AVX2
from gllm_kernels.codegen.isa.avx512 import AVX512
from gllm_kernels.codegen.isa.detect import host_isas
from gllm_kernels.debug.bench import limits


def mnemonics(code: bytes) -> list[int]:
    return [instruction.mnemonic for instruction in Decoder(64, code)]


@pytest.mark.parametrize("isa", (AVX2, AVX512), ids=lambda i: i.name)
def test_reads_touch_every_byte_once(isa: object) -> None:
    body = limits.reads(isa)
    found = [i for i in Decoder(64, limits.assembled(isa, body, limits.STRIDE))
             if i.mnemonic == Mnemonic.VMAXPS]  # fmt: skip
    assert sorted(i.memory_displacement for i in found) == list(
        range(0, limits.STRIDE, isa.vector_bytes)
    )


@pytest.mark.parametrize("isa", host_isas(), ids=lambda i: i.name)
@pytest.mark.parametrize("threads", (1, 2))
def test_limits_count_what_they_run(
    isa: object, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FMA_ROUNDS", 3)
    calls = []
    monkeypatch.setattr(limits, "together", lambda address, given: calls.append(given))
    found = limits.limits_of.__wrapped__(isa, "f32", threads, 1 << 20)
    chains = 28 if isa.vregs == 32 else 12
    assert found.flops == 2 * 3 * chains * isa.lanes * threads
    peak, read = calls
    assert [rounds for _, rounds in peak] == [3] * threads
    starts = [at for at, _ in read]
    assert sum(rounds for _, rounds in read) * limits.STRIDE == found.bytes <= 1 << 20
    assert starts == [starts[0] + i * (found.bytes // threads) for i in range(threads)]


@pytest.mark.parametrize("isa", host_isas(), ids=lambda i: i.name)
def test_limits_run(isa: object) -> None:
    for type_ in ("f32", "f16", "bf16"):
        for threads in (1, 2):
            found = limits.limits_of.__wrapped__(isa, type_, threads, 1 << 16)
            found.peak()
            found.read()
