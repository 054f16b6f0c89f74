"""Max pooling as GPUs want it: nothing that scatters, as MLX's own gradient does, with atomic additions whose order,
and so whose sums, differ from run to run. Arrays N x H x W x C.

Two kernels of our own (pooling_kernels.py) make a pooling and its gradient, where they do what they should; else MLX's
operators, of which mx.compile makes three kernels and two paddings.
"""

import functools
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from . import pooling_kernels
from .pooling_kernels import BLOCKED

UNSEEN = 255  # in place of the number that a window's cell has: for a cell outside it


class Windows(NamedTuple):
    """Windows of k x k cells, s apart, over a map with a border of `rows` (above, below) and `columns` (left, right)
    that is never the maximum.
    """

    k: int
    s: int
    rows: tuple
    columns: tuple

    def padded(self, shape):
        """Return the height and width of N x H x W x C with its border."""
        return [side + sum(ends) for side, ends in zip(shape[1:3], (self.rows, self.columns), strict=True)]

    def size(self, shape):
        """Return in how many rows and columns they lie over N x H x W x C."""
        return [(side - self.k) // self.s + 1 for side in self.padded(shape)]

    @property
    def reach(self):
        """In how many of them, along a side, a cell may lie."""
        return -(-self.k // self.s)

    def blocks(self, shape):
        """Return how many blocks of s x s cells the padded map has, down and across."""
        return [-(-side // self.s) for side in self.padded(shape)]


AROUND = Windows(3, 1, (1, 1), (1, 1))  # of an Inception module's pooling


@functools.cache
def max_pool_gpu(windows, relu=False):
    """Return a function of N x H x W x C: the maxima of windows. With `relu` it is one of (map, bias), and makes
    max(maximum + bias, 0) of them: what pooling makes of max(map + bias, 0), in one kernel, and of fewer cells.

    Its gradient goes to the first of equal maxima, as torch's, and is a gather: each cell sums what the windows give
    that it is the maximum of.
    """

    @mx.custom_function
    def pool(x, bias):
        pooled = pooling_kernels.pool if has_kernels(x, windows, relu) else by_operators
        return pooled(windows, x, bias, relu)

    @pool.vjp
    def pool_vjp(primals, dy, outputs):
        (x, _), dy, (y, places) = primals, dy[0], outputs
        gradient = pooling_kernels.gradient if has_kernels(x, windows, relu) else gradient_by_operators
        # what nobody asks for is never computed
        return gradient(windows, dy, places, x.shape), (dy * mx.sign(y)).sum(axis=(0, 1, 2))

    def function(x, bias=0):
        bias = mx.full(x.shape[3], bias, x.dtype) if isinstance(bias, int) else bias
        return pool(x, bias)[0]

    return function


def has_kernels(x, windows, relu=False, plus=False):
    """Return whether our kernels are to pool x; relu, plus: as in pooling_kernels.py."""
    return x.size <= pooling_kernels.LARGEST and are_right(windows.k, windows.s, relu, plus, x.dtype)


@functools.cache
def are_right(k, s, relu, plus, dtype):
    """Return whether this machine's GPU takes our kernels, and makes of them what MLX's operators make. It is tried
    once: they were written by people who had no GPU.
    """
    edges = (((0, 1), (0, 0)), ((1, 1), (1, 0)))
    try:
        return all(agree(Windows(k, s, *ends), relu, plus, dtype) for ends in edges)
    except Exception:  # whatever the compilers and drivers of all those machines throw
        return False


def agree(windows, relu, plus, dtype):
    """Return whether our kernels agree with MLX's operators on a map with equal cells, and cells below 0."""
    rng = np.random.default_rng(0)
    x, bias = (mx.array(rng.integers(-9, 10, shape) / 8, dtype) for shape in ((2, 13, 10, 40), 40))
    y, places = pooling_kernels.pool(windows, x, bias, relu)
    plain, plain_places = by_operators(windows, x, bias, relu)
    dy = mx.array(rng.integers(-9, 10, y.shape) / 8, dtype)
    dx = pooling_kernels.gradient(windows, dy, places, x.shape, x if plus else None)
    plain_dx = gradient_by_operators(windows, dy, plain_places, x.shape) + (x if plus else 0)
    return mx.array_equal(y, plain).item() and mx.array_equal(dx, plain_dx).item()


def by_operators(windows, x, bias=0, relu=False):
    """Return (maxima of windows, their places), as maxima_and_places() does.

    The places are also those of windows beyond the map's upper and left border, where no gradient comes from.
    """
    k, s, *edges = windows
    beyond, size = windows.reach - 1, windows.size(x.shape)
    ends = []
    for side, blocks, (before, _) in zip(x.shape[1:3], windows.blocks(x.shape), edges, strict=True):
        length = (blocks + beyond - 1) * s + k
        ends.append((beyond * s + before, max(length - beyond * s - before - side, 0)))
    wide = mx.pad(x, [(0, 0), *ends, (0, 0)], constant_values=-float("inf")) if np.any(ends) else x
    cells = cells_of_windows(wide, k, s)
    inner = (slice(None), *(slice(beyond, beyond + count) for count in size))
    y, _ = maxima_and_places([cell[inner] for cell in cells], bias, relu)
    return y, maxima_and_places(cells, bias, relu)[1]


def gradient_by_operators(windows, dy, places, shape):
    """Return the gradient for the map of that shape, from that of the maxima: in blocks of s x s cells, what each of
    the windows gives that a block may lie in.
    """
    k, s, (top, _), (left, _) = windows
    (n, height, width, channels), (down, across), beyond = shape, windows.blocks(shape), windows.reach - 1
    ends = (down - dy.shape[1], across - dy.shape[2])
    if beyond or any(ends):
        dy = mx.pad(dy, [(0, 0), (beyond, ends[0]), (beyond, ends[1]), (0, 0)])
    shares = []
    for i in range(windows.reach):
        for j in range(windows.reach):
            first, start = beyond - i, beyond - j
            window = (slice(None), slice(first, first + down), None, slice(start, start + across), None)
            shares.append(mx.where(places[window] == tap_numbers(k, s, i, j), dy[window], 0))
    dx = in_pairs(mx.add, shares).reshape(n, down * s, across * s, channels)
    return dx[:, top : top + height, left : left + width]


def tap_numbers(k, s, up, left):
    """Return the number of the tap, s x 1 x s x 1, in which the window `up` rows and `left` columns of
    windows before sees each cell of a block; UNSEEN where it sees it in none.
    """
    cells = [(a + s * up, b + s * left) for a in range(s) for b in range(s)]
    numbers = [i * k + j if max(i, j) < k else UNSEEN for i, j in cells]
    return mx.array(numbers, mx.uint8).reshape(s, 1, s, 1) if s > 1 else mx.array(numbers[0], mx.uint8)


def max_pool_3x3(x):
    """Return (maxima, places), as maxima_and_places() does, of the windows of 3 x 3 cells about each cell of
    N x H x W x C; without our kernels, about those of a border of one, too, so that the gradient needs no padding.
    """
    if has_kernels(x, AROUND, plus=True):
        return pooling_kernels.pool(AROUND, x)
    x = mx.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)], constant_values=-float("inf"))
    return maxima_and_places(cells_of_windows(x, 3, 1))


def max_pool_3x3_gradient(dy, places, plus):
    """Return the sum of a gradient for x and that from the maxima, which is zero in a border."""
    if has_kernels(plus, AROUND, plus=True):
        return pooling_kernels.gradient(AROUND, dy, places, plus.shape, plus)
    height, width = plus.shape[1:3]
    shares = []
    for i in range(3):
        for j in range(3):  # what the windows give that see a cell in row i, column j
            window = (slice(None), slice(2 - i, 2 - i + height), slice(2 - j, 2 - j + width))
            place = places[window]
            for _ in range(i):  # nine numbers to compare with would be too many for one kernel
                place = place - mx.array(3, mx.uint8)
            shares.append(mx.where(place == j, dy[window], 0))
    return plus + in_pairs(mx.add, shares)


def cells_of_windows(x, k, s):
    """Return for each cell of a window of k x k cells, row by row, what lies in it in all windows, s apart."""
    rows, columns = ((side - k) // s * s + 1 for side in x.shape[1:3])
    return [x[:, i : i + rows : s, j : j + columns : s] for i in range(k) for j in range(k)]


def maxima_and_places(cells, bias=0, relu=False):
    """Return (the maximum of arrays, the number of the first of them that has it, as uint8); with `relu`,
    max(maximum + bias, 0), and the number BLOCKED where that is 0.
    """
    none = mx.array(UNSEEN, mx.uint8)
    y = in_pairs(mx.maximum, cells)
    places = in_pairs(mx.minimum, [mx.where(cell == y, mx.array(i, mx.uint8), none) for i, cell in enumerate(cells)])
    if relu:
        y = mx.maximum(y + bias, 0)
        places = mx.where(y > 0, places, mx.array(BLOCKED, mx.uint8))
    return y, places


def in_pairs(function, items):
    """Reduce items with an associative function, in pairs: a chain of nine would be too deep to become one kernel."""
    while len(items) > 1:
        pairs = zip(items[::2], items[1::2], strict=False)
        items = [function(a, b) for a, b in pairs] + items[len(items) // 2 * 2 :]
    return items[0]
