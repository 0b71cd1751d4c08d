"""A strided window on a buffer: shape, strides and offset in elements, all polynomials.

    element (c0, c1, ...) of the view = buffer[offset + c0*strides[0] + c1*strides[1] + ...]

Views never copy. Sizes may name dynamic dimensions ("tokens"), known only when a layer is called.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ..errors import ShapeError
from ..trace.affine import Affine, as_affine

Dim = int | str | Affine


def shape_of(dims: Iterable[Dim]) -> tuple[Affine, ...]:
    """Sizes as polynomials: an int is a constant, a string a dynamic dimension."""
    return tuple(as_affine(d) for d in dims)


def size_of(shape: Iterable[Affine]) -> Affine:
    """The number of elements."""
    total = Affine.const(1)
    for extent in shape:
        total = total * extent
    return total


def row_major(shape: tuple[Affine, ...]) -> tuple[Affine, ...]:
    """Strides of a contiguous array, last dimension 1."""
    strides, step = [], Affine.const(1)
    for extent in reversed(shape):
        strides.append(step)
        step = step * extent
    return tuple(reversed(strides))


@dataclass(frozen=True, slots=True)
class View:
    """Immutable; every method gives a new view of the same buffer."""

    buffer: str
    shape: tuple[Affine, ...]
    strides: tuple[Affine, ...]
    offset: Affine = Affine()
    dtype: str = "float32"
    # (what, need, have): need <= have must hold in every call; no part of the view's identity
    limits: tuple[tuple[str, Affine, Affine], ...] = field(default=(), compare=False)

    @staticmethod
    def contiguous(buffer: str, shape: Iterable[Dim], dtype: str = "float32") -> View:
        sizes = shape_of(shape)
        return View(buffer, sizes, row_major(sizes), Affine(), dtype)

    @property
    def is_contiguous(self) -> bool:
        return self.strides == row_major(self.shape)

    def split(self, axis: int, *sizes: Dim) -> View:
        """One axis into several, outermost first: (8, 64).split(0, 2, 4) -> (2, 4, 64)."""
        parts = shape_of(sizes)
        axis = self._axis(axis)
        if size_of(parts) != self.shape[axis]:
            raise ShapeError(
                f"{self.buffer}: cannot split axis {axis} of size {self.shape[axis]} into "
                f"{' x '.join(map(str, parts))}; the product of the sizes must be the axis"
            )
        steps = tuple(s * self.strides[axis] for s in row_major(parts))
        return self._with_axis(axis, 1, parts, steps)

    def merge(self, axis: int, count: int = 2) -> View:
        """`count` neighbouring axes into one; their strides must nest."""
        axis = self._axis(axis)
        sizes = self.shape[axis : axis + count]
        inner = self.strides[axis + count - 1]
        if tuple(s * inner for s in row_major(sizes)) != self.strides[axis : axis + count]:
            raise ShapeError(f"{self}: axes {axis}..{axis + count - 1} are not contiguous; copy first")
        return self._with_axis(axis, count, (size_of(sizes),), (inner,))

    def permute(self, *order: int) -> View:
        """Axes in a new order."""
        if sorted(order) != list(range(len(self.shape))):
            raise ShapeError(f"{self}: {order} is not an order of its {len(self.shape)} axes")
        return replace(self, shape=tuple(self.shape[a] for a in order),
                       strides=tuple(self.strides[a] for a in order))

    def slice(self, axis: int, start: Dim, length: Dim) -> View:
        """`length` positions of an axis from `start` on, all of them inside the axis."""
        axis = self._axis(axis)
        shape = list(self.shape)
        shape[axis] = as_affine(length)
        first, end = as_affine(start), as_affine(start) + length
        what = f"{self.buffer}: slice {first}:{end} of axis {axis}"
        limits = [(what, -first, Affine()), (what, end, self.shape[axis]),
                  (what, -shape[axis], Affine())]
        for name, need, have in limits:
            gap = (have - need).constant
            if gap is not None and gap < 0:
                raise ShapeError(f"{name} leaves the axis, which has size {self.shape[axis]}")
        open_limits = tuple(row for row in limits if (row[2] - row[1]).constant is None)
        return replace(self, shape=tuple(shape), offset=self.offset + first * self.strides[axis],
                       limits=self.limits + open_limits)

    def insert(self, axis: int, size: Dim = 1) -> View:
        """A new axis of stride 0: every position along it is the same element."""
        zero = (Affine(),)
        return replace(self, shape=self.shape[:axis] + shape_of((size,)) + self.shape[axis:],
                       strides=self.strides[:axis] + zero + self.strides[axis:])

    def broadcast_to(self, shape: Iterable[Dim]) -> View:
        """numpy broadcasting: missing leading axes and axes of size 1 repeat."""
        wanted = shape_of(shape)
        view = self
        while len(view.shape) < len(wanted):
            view = view.insert(0)
        if len(view.shape) > len(wanted):
            raise ShapeError(f"{self}: cannot broadcast to {_text(wanted)}, which has fewer axes")
        strides = tuple(self._repeat(*row, wanted) for row in zip(view.shape, view.strides, wanted))
        return replace(view, shape=wanted, strides=strides)

    def _repeat(self, have: Affine, stride: Affine, want: Affine, all_: tuple[Affine, ...]) -> Affine:
        if have == want:
            return stride
        if have == Affine.const(1):
            return Affine()
        raise ShapeError(f"{self}: cannot broadcast to {_text(all_)}: size {have} is not {want}")

    def _axis(self, axis: int) -> int:
        if not -len(self.shape) <= axis < len(self.shape):
            raise ShapeError(f"{self} has no axis {axis}")
        return axis % len(self.shape)

    def reach(self) -> tuple[Affine, Affine]:
        """The lowest and the highest element of the buffer that a non-empty view contains."""
        low = high = self.offset
        for size, stride in zip(self.shape, self.strides):
            if all(c < 0 for c, _ in stride.terms):
                low = low + (size - 1) * stride
            else:
                high = high + (size - 1) * stride
        return low, high

    def _with_axis(self, axis: int, count: int, sizes: tuple[Affine, ...],
                   steps: tuple[Affine, ...]) -> View:
        end = axis + count
        return replace(self, shape=self.shape[:axis] + sizes + self.shape[end:],
                       strides=self.strides[:axis] + steps + self.strides[end:])

    def __str__(self) -> str:
        at = f" at {self.offset}" if self.offset.terms else ""
        strides = "" if self.is_contiguous else f" strides {_text(self.strides)}"
        return f"{self.buffer}{_text(self.shape)}{strides}{at}"


def _text(shape: tuple[Affine, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
