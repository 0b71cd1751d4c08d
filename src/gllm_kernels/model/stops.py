"""Stop strings: text is held back while it could still grow into one of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import ShapeError


def read_stops(stop: str | Sequence[str]) -> tuple[str, ...]:
    many = isinstance(stop, Iterable) and not isinstance(stop, str)
    stops = tuple(stop) if many else (stop,)
    if not all(isinstance(text, str) and text for text in stops):
        raise ShapeError(f"stop={stop!r}: expected a non-empty string or a sequence of them")
    return stops


class StopGate:
    """Lets text through up to the first stop string, which it swallows; then `hit` is true."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.hit = False

    def push(self, text: str) -> str:
        """What may be shown now that `text` has come."""
        if self.hit:
            return ""
        held = self._held + text
        found = [at for at in (held.find(stop) for stop in self._stops) if at >= 0]
        self.hit = bool(found)
        open_tail = max((overlap(held, stop) for stop in self._stops), default=0)
        ready = min(found, default=len(held) - open_tail)
        self._held = held[ready:]
        return held[:ready]

    def end(self, text: str) -> str:
        """The rest: nothing more comes, so what was held back is no stop string."""
        rest = self.push(text)
        return rest if self.hit else rest + self._held


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    lengths = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((n for n in lengths if text.endswith(stop[:n])), 0)
