"""Objects numbered across blocks and planes, without the whole of them in memory.

Each piece is labelled on its own; pieces of one object are joined where they touch over a border
(union-find). The numbers are those that `split_objects` would give to the whole at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_ptsam.objects import split_objects
from napari_ptsam.volumes.blocks import Block

Labels = NDArray[np.int64]


class Sets:
    """Disjoint sets of numbers, of which the smallest stands for all (union-find)."""

    def __init__(self) -> None:
        self._parent = np.zeros(1, np.int64)
        self._count = 1

    def __len__(self) -> int:
        return self._count

    def extend(self, count: int) -> None:
        """Add so many more numbers, each a set of its own."""
        needed = self._count + count
        if needed > len(self._parent):
            room = max(needed, 2 * len(self._parent))
            self._parent = np.concatenate([self._parent, np.arange(len(self._parent), room)])
        self._count = needed

    def find(self, number: int) -> int:
        """The smallest number of a set."""
        parent = self._parent
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = int(parent[number])
        return number

    def join(self, one: Labels, other: Labels) -> None:
        """Join the sets of numbers that lie side by side; 0 is no number."""
        both = (one > 0) & (other > 0)
        pairs = np.unique(np.stack([one[both], other[both]]), axis=1)
        for a, b in pairs.T.tolist():
            low, high = sorted((self.find(a), self.find(b)))
            self._parent[high] = low

    def roots(self) -> Labels:
        """For each number, the smallest of its set."""
        roots = self._parent[: self._count].copy()
        # Parents are smaller than their children, so each step settles at least one more.
        while not np.array_equal(roots, roots[roots]):
            roots = roots[roots]
        return roots


class Linker:
    """Takes the pieces of a volume in order and joins those that touch.

    Parameters
    ----------
    plane_shape
        Height and width of the planes.
    blocks
        The blocks of each plane, in order.
    """

    def __init__(self, plane_shape: tuple[int, int], blocks: list[Block]) -> None:
        self._shape, self._blocks = plane_shape, blocks
        self._sets = Sets()
        self._sizes: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
        self._first: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
        self._starts: list[int] = []
        self._row_above: Labels = np.zeros(plane_shape[1], np.int64)
        self._row_below: Labels = np.zeros(plane_shape[1], np.int64)
        self._left: Labels | None = None

    @staticmethod
    def labelled(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Objects of a piece, 1 to n."""
        return split_objects(mask)

    def add(self, mask: NDArray[np.bool_], above: NDArray[np.bool_] | None) -> None:
        """Add the next piece.

        Parameters
        ----------
        mask
            HxW, the block.
        above
            The same block of the plane above, which was added before, if they belong together.
        """
        number = len(self._starts)
        block = self._blocks[number % len(self._blocks)]
        labels = self._global(number, self.labelled(mask), grow=True)
        count = len(self._sets) - self._starts[number] - 1
        inside = labels[labels > 0] - self._starts[number] - 1
        self._sizes.append(np.bincount(inside, minlength=count))
        self._first.append(self._places(number, block, labels, count))
        self._join_sides(block, labels)
        if above is not None:
            before = self._global(number - len(self._blocks), self.labelled(above), grow=False)
            self._sets.join(labels, before)

    def _global(self, number: int, labels: NDArray[np.int32], *, grow: bool) -> Labels:
        """Labels of a piece as numbers that no other piece has."""
        if grow:
            self._starts.append(len(self._sets) - 1)
            self._sets.extend(int(labels.max(initial=0)))
        return np.where(labels > 0, labels.astype(np.int64) + self._starts[number], 0)

    def _places(self, number: int, block: Block, labels: Labels, count: int) -> NDArray[np.int64]:
        """Where in the whole volume each object of a piece begins."""
        present, first = np.unique(labels.ravel(), return_index=True)
        keep = present > 0
        rows, columns = np.divmod(first[keep], block.shape[1])
        plane = number // len(self._blocks)
        height, width = self._shape
        places = (plane * height + rows + block.corner[0]) * width + columns + block.corner[1]
        found = np.zeros(count, np.int64)
        found[present[keep] - self._starts[number] - 1] = places
        return found

    def _join_sides(self, block: Block, labels: Labels) -> None:
        (row, column), (height, width) = block.corner, block.shape
        if column == 0:
            # A new row of blocks begins: what was the last one now lies above.
            self._row_above, self._row_below = self._row_below, np.zeros_like(self._row_below)
            self._left = None
        if row > 0:
            over = np.pad(self._row_above, 1)
            for step in range(3):  # corners touch too
                self._sets.join(labels[0], over[column + step : column + step + width])
        if self._left is not None:
            beside = np.pad(self._left, 1)
            for step in range(3):
                self._sets.join(labels[:, 0], beside[step : step + height])
        self._row_below[column : column + width] = labels[-1]
        self._left = labels[:, -1].copy()

    def finish(self, minimum_size: int = 0) -> Numbers:
        """The numbers of all objects, in the order of their first pixels.

        Parameters
        ----------
        minimum_size
            Objects of fewer pixels (voxels) get none.
        """
        roots = self._sets.roots()
        sizes = np.zeros(len(roots), np.int64)
        np.add.at(sizes, roots, np.concatenate(self._sizes))
        first = np.full(len(roots), np.iinfo(np.int64).max)
        np.minimum.at(first, roots, np.concatenate(self._first))
        kept = np.flatnonzero(sizes >= max(minimum_size, 1))
        new = np.zeros(len(roots), np.int64)
        new[kept[np.argsort(first[kept])]] = np.arange(1, len(kept) + 1)
        return Numbers(new[roots], self._starts, len(kept))


@dataclass(frozen=True)
class Numbers:
    """Final numbers of the objects of all pieces.

    Attributes
    ----------
    count
        How many objects there are.
    """

    _final: Labels
    _starts: list[int]
    count: int

    def apply(self, number: int, mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
        """The numbered objects of a piece, from its mask."""
        labels = Linker.labelled(mask)
        moved = np.where(labels > 0, labels.astype(np.int64) + self._starts[number], 0)
        return self._final[moved].astype(np.uint32)


def pieces(planes: int, blocks: list[Block]) -> Iterator[tuple[int, int, Block]]:
    """Number, plane and block of each piece, in the order that a `Linker` takes them."""
    for number in range(planes * len(blocks)):
        yield number, number // len(blocks), blocks[number % len(blocks)]
