"""What fusion knows of a machine: registers, caches, threads. Plain numbers, so that any machine can
be asked about on any other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """Sizes in bytes, per core except `l3`. `isa` is scalar, avx2 or avx512."""

    isa: str
    lanes: int
    vector_registers: int
    l1d: int
    l2: int
    l3: int
    threads: int

    def __str__(self) -> str:
        return (f"{self.isa}: {self.vector_registers} vector registers of {self.lanes} floats, "
                f"L1 {self.l1d >> 10} KiB, L2 {self.l2 >> 10} KiB, L3 {self.l3 >> 10} KiB, "
                f"{self.threads} thread(s)")
