"""What a checkpoint holds, without loading it: metadata, and every tensor with its type, shape and place."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..model.checkpoint import Directory, GgufCheckpoint, open_checkpoint
from ..model.fields import read_object, shown
from ..model.tensorfile import Entry

FIRST = 3  # items that are shown of a list


def inspect(path: Path) -> str:
    """Metadata, tensors in the order of the file, and a total for every type."""
    checkpoint = open_checkpoint(path)
    values = read_object(path / "config.json") if isinstance(checkpoint, Directory) else checkpoint.file.fields
    entries = [file.entries[name] for name, file in checkpoint.homes().items()]
    lines = [title(checkpoint), *(f"  {key:44} {brief(value)}" for key, value in values.values.items()),
             f"{len(entries)} tensors", *table(entries), *totals(entries)]
    return "\n".join(lines)


def title(checkpoint: Directory | GgufCheckpoint) -> str:
    if isinstance(checkpoint, Directory):
        return f"{checkpoint.path}: config.json"
    return f"{checkpoint.path}: GGUF version {checkpoint.file.version}"


def brief(value: object) -> str:
    if isinstance(value, list) and len(value) > FIRST:
        items = ", ".join(shown(item) for item in value[:FIRST])
        return f"[{items}, ... {len(value)} in all]"
    return shown(value)


def table(entries: Iterable[Entry]) -> list[str]:
    rows = sorted(entries, key=lambda e: (str(e.path), e.begin))
    return [f"  {e.name:44} {e.dtype:6} {'x'.join(map(str, e.shape)):>14} {e.size:>12} bytes at {e.begin}" for e in rows]


def totals(entries: list[Entry]) -> list[str]:
    kinds = dict.fromkeys(e.dtype for e in entries)
    sums = {kind: [e.size for e in entries if e.dtype == kind] for kind in kinds}
    return [f"{kind:6} {len(sizes):>5} tensors {sum(sizes) / 1e6:>12.1f} MB" for kind, sizes in sums.items()]
