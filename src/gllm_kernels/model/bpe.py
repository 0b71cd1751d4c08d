"""Byte-pair encoding: join the adjacent pair of lowest rank, leftmost first, until none is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

Merges = Mapping[tuple[int, int], tuple[int, int]]  # (left id, right id) -> (rank, joined id)
CACHE_WORDS = 1 << 14
CACHE_CHARS = 64  # longer words hardly come twice


@dataclass(frozen=True, slots=True)
class Bpe:
    """Vocabulary and merges; characters outside it become bytes, or the unknown token."""

    vocab: Mapping[str, int]
    merges: Merges
    whole_words: bool = False  # a word that is a token needs no merging (`ignore_merges`)
    bytes: tuple[int, ...] | None = None  # ids of <0x00>..<0xFF> (`byte_fallback`)
    unknown: int | None = None
    fuse_unknown: bool = False
    cache: dict[str, list[int]] = field(default_factory=dict, compare=False, repr=False)

    def encode(self, word: str) -> list[int]:
        found = self.cache.get(word)
        if found is not None:
            return found
        ids = self._encode(word)
        if len(word) <= CACHE_CHARS:
            if len(self.cache) >= CACHE_WORDS:
                self.cache.clear()
            self.cache[word] = ids
        return ids

    def _encode(self, word: str) -> list[int]:
        if self.whole_words and word in self.vocab:
            return [self.vocab[word]]
        return join(self.symbols(word), self.merges)

    def symbols(self, word: str) -> list[int]:
        """One id per character, or one per UTF-8 byte of a character that has none.

        Without bytes and without an unknown token such a character leaves no trace, which is
        what the format's own implementation does.
        """
        ids: list[int] = []
        fused = False
        for char in word:
            known = self.vocab.get(char)
            if known is not None:
                ids.append(known)
            elif self.bytes is not None:
                ids.extend(self.bytes[byte] for byte in char.encode())
            elif self.unknown is not None and not (fused and self.fuse_unknown):
                ids.append(self.unknown)
            fused = known is None
        return ids


def join(ids: list[int], merges: Merges) -> list[int]:
    """All merges, in O(n log n): a heap of candidate pairs over a doubly linked list.

    A pair is found again when it leaves the heap: either side may have been joined meanwhile.
    """
    ids = list(ids)
    count = len(ids)
    after, before = list(range(1, count + 1)), list(range(-1, count - 1))
    heap: list[tuple[int, int, int]] = []  # (rank, place of the left side, joined id)
    for left in range(count - 1):
        pair = merges.get((ids[left], ids[left + 1]))
        if pair is not None:
            heap.append((pair[0], left, pair[1]))
    heapify(heap)
    while heap:
        _, left, joined = heappop(heap)
        right = after[left]
        if right >= count or merges.get((ids[left], ids[right]), _NONE)[1] != joined:
            continue
        ids[left], ids[right] = joined, _GONE
        after[left] = after[right]
        if after[left] < count:
            before[after[left]] = left
        for place in (before[left], left):
            if place >= 0 and after[place] < count:
                pair = merges.get((ids[place], ids[after[place]]))
                if pair is not None:
                    heappush(heap, (pair[0], place, pair[1]))
    return [id for id in ids if id != _GONE]


_GONE = -1
_NONE = (-1, -2)
