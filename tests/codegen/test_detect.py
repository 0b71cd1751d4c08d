"""CPUID by our own routine: what it finds, and what is refused."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from gllm_kernels.codegen.isa import detect
from gllm_kernels.codegen.isa.detect import AVX2, AVX512_FIRST, Host, current_isa, host, host_isas, usable
from gllm_kernels.config import config
from gllm_kernels.errors import UnsupportedOpError

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="CPUID is x86-64")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="compares with Linux")
def test_features_equal_the_kernels_view():
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines()
                 if line.startswith("flags")).split()
    named = {f for f in detect.FEATURES if f != "osxsave"}
    assert host().features & named == named & set(flags)


@pytest.mark.skipif(not Path("/sys/devices/system/cpu/cpu0/cache").exists(), reason="needs sysfs")
def test_caches_equal_the_kernels_view():
    want = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        if (index / "type").read_text().strip() != "Instruction":
            size = (index / "size").read_text().strip()
            want[int((index / "level").read_text())] = int(size.rstrip("K")) * 1024
    assert {c.level: c.bytes for c in host().caches} == want
    assert host().cache(9) is None


def test_state_the_system_does_not_save_is_not_used():
    features = {"avx2", "fma", "bmi2", "avx512f", "avx512vl"}
    assert usable(features, 0) == {"bmi2"}
    assert usable(features, 0x6) == {"bmi2", "avx2", "fma"}
    assert usable(features, 0xE6) == features


def test_config_chooses_by_name():
    for isa in host_isas():
        with config(isa=isa.name):
            assert current_isa() is isa
    with config(isa="scalar"):
        assert current_isa() is None
    with config(isa=""):
        assert current_isa() is host_isas()[0]


@pytest.mark.parametrize("wanted", ["avx512", "avx2", ""])
def test_missing_features_are_named(monkeypatch, wanted):
    old = Host("Old", "Old CPU 1", frozenset({"sse4_2", "avx2"}), ())
    monkeypatch.setattr(detect, "host", lambda: old)
    assert host_isas() == ()
    isa = {"avx512": AVX512_FIRST}.get(wanted, AVX2)
    lacking = ", ".join(sorted(isa.features - {"avx2"}))
    with config(isa=wanted), pytest.raises(UnsupportedOpError, match=f"Old CPU 1.*{lacking}.*scalar"):
        current_isa()


def test_widest_first():
    assert [i.lanes for i in detect.ISAS] == sorted((i.lanes for i in detect.ISAS), reverse=True)
