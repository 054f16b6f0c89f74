"""Convolutions and max pooling as GPUs want them: few kernels, which mx.compile fuses, and nothing that scatters.

Arrays N x H x W x C; weights O x H x W x I. MLX's own gradients would flip the weights at every step, in a form that
its Winograd kernels refuse, and scatter with atomic additions, whose order and so whose sums differ from run to run.
On Metal, the first layer's own gradient would pad its 3 channels to 32 and take them at a stride, so that this layer
works on blocks of cells.
"""

import functools

import mlx.core as mx
import numpy as np

from .blocks import depth_to_space, space_to_depth

# in place of the number of a window's cell that is its maximum: for a cell outside it, and where a ReLU blocks it
UNSEEN, BLOCKED = 255, 254


def conv2d_gpu(x, weight, bias, stride, padding, cached, relu=False):
    """Convolve, add the bias, and with `relu` take max(.., 0); the gradient is an ordinary convolution."""
    blocks = None
    if in_blocks(weight, stride):
        blocks = cached("blocks", lambda w: weight_blocks(w, stride, padding), weight)

    @mx.custom_function
    def convolution(x, _, bias=None):  # the weights come as other objects, for which cached() would keep nothing
        y = forward(x, weight, stride, padding, blocks)
        y = y if bias is None else y + bias
        return mx.maximum(y, 0) if relu else y

    @convolution.vjp
    def convolution_vjp(primals, dy, y):
        x = primals[0]
        dy = dy * mx.sign(y) if relu else dy
        gradients = (
            input_gradient(x, weight, dy, stride, padding, cached),
            mx.vjp(lambda w: forward(x, w, stride, padding), [weight], [dy])[1][0],
            dy.sum(axis=(0, 1, 2)),
        )
        return gradients[: len(primals)]  # what nobody asks for is never computed

    return convolution(x, weight) if bias is None else convolution(x, weight, bias)


def forward(x, weight, stride, padding, blocks=None):
    return (
        conv2d_of_blocks(x, weight, stride, padding, blocks)
        if in_blocks(weight, stride)
        else mx.conv2d(x, weight, stride, padding)
    )


def in_blocks(weight, stride):
    """Return whether a convolution is a network's first, on the pixels, whose gradient Metal would unfold."""
    return stride != (1, 1) and weight.shape[3] <= 4 and mx.metal.is_available()


def input_gradient(x, weight, dy, stride, padding, cached):
    """Compute the gradient for x: a convolution of dy with the flipped kernel."""
    if stride == (1, 1):
        padding = [k - 1 - p for k, p in zip(weight.shape[1:3], padding, strict=True)]
        if min(padding) >= 0:
            return mx.conv2d(dy, cached("flipped", flip, weight), padding=padding)
    if not in_blocks(weight, stride):
        return mx.vjp(lambda x: mx.conv2d(x, weight, stride, padding), [x], [dy])[1][0]
    flipped = cached("flipped", lambda w: flip(weight_blocks(w, stride, padding)), weight)
    low, high = borders(x.shape[1:3], weight, stride, padding)
    ends = [[side - 1 - end for side, end in zip(flipped.shape[1:3], edge, strict=True)] for edge in (low, high)]
    dx = depth_to_space(mx.conv_general(dy, flipped, padding=tuple(ends)), stride, x.shape[-1])
    return dx if dx.shape == x.shape else dx[:, : x.shape[1], : x.shape[2]]


def flip(weight):
    """Turn O x h x w x I into the I x h x w x O of the gradient."""
    return mx.contiguous(weight[:, ::-1, ::-1].transpose(3, 1, 2, 0))


def conv2d_of_blocks(x, weight, stride, padding, blocks=None):
    """Convolve with a stride, as mx.conv2d does, by a convolution of stride 1 on blocks of stride x stride cells.

    blocks: weight_blocks(), where they are known.
    """
    blocks = weight_blocks(weight, stride, padding) if blocks is None else blocks
    return mx.conv_general(space_to_depth(x, stride), blocks, padding=borders(x.shape[1:3], weight, stride, padding))


def weight_blocks(weight, stride, padding):
    """Return weights O x h x w x I in blocks, behind zeros: these let windows that begin in the padding, and so perhaps
    within a block, begin with it.
    """
    zeros = [(-p % s, 0) for p, s in zip(padding, stride, strict=True)]
    return space_to_depth(mx.pad(weight, [(0, 0), *zeros, (0, 0)]), stride)


def borders(sides, weight, stride, padding):
    """Return by how many blocks a map of blocks is padded at its low and high ends, for as many windows as its cells
    have; negative where the last blocks are in none.
    """
    low, high = [], []
    for side, k, s, p in zip(sides, weight.shape[1:3], stride, padding, strict=True):
        windows, kernel = (side + 2 * p - k) // s + 1, -(-(k + -p % s) // s)
        low.append(-(-p // s))
        high.append(windows - 1 + kernel - low[-1] - -(-side // s))
    return low, high


@functools.cache
def max_pool_gpu(k, s, rows, columns, relu=False):
    """Return a function of N x H x W x C: maxima of windows of k x k cells, s apart, over a map that is padded by
    `rows` (above, below) and `columns` (left, right). With `relu` it is one of (map, bias), and makes
    max(maximum + bias, 0) of them: what pooling makes of max(map + bias, 0), in one kernel, and of fewer cells.

    Its gradient goes to the first of equal maxima, as torch's, and is a gather: each cell sums what the windows give
    that it is the maximum of. Windows beyond the map's upper and left border, where no gradient comes from, are looked
    at for it as well.
    """
    reach = -(-k // s)  # how many windows, along a side, a cell may lie in
    beyond = reach - 1

    def blocks(size, edges):
        """Return how many blocks of s cells a padded side has."""
        return -(-(size + sum(edges)) // s)

    @mx.custom_function
    def maximum(x, bias):
        edges = []
        for size, (before, after) in zip(x.shape[1:3], (rows, columns), strict=True):
            length = (blocks(size, (before, after)) + beyond - 1) * s + k
            edges.append((beyond * s + before, length - beyond * s - before - size))
        wide = mx.pad(x, [(0, 0), *edges, (0, 0)], constant_values=-float("inf")) if np.any(edges) else x
        height, width = (
            (side + sum(ends) - k) // s + 1 for side, ends in zip(x.shape[1:3], (rows, columns), strict=True)
        )
        inner = (slice(None), slice(beyond, beyond + height), slice(beyond, beyond + width))
        cells = cells_of_windows(wide, k, s)
        y, _ = maxima_and_places([cell[inner] for cell in cells], bias, relu)
        return y, maxima_and_places(cells, bias, relu)[1]

    @maximum.vjp
    def maximum_vjp(primals, cotangents, outputs):
        x, dy, (y, places) = primals[0], cotangents[0], outputs
        n, height, width, channels = x.shape
        down, across = blocks(height, rows), blocks(width, columns)
        ends = (down - dy.shape[1], across - dy.shape[2])
        if beyond or any(ends):
            dy = mx.pad(dy, [(0, 0), (beyond, ends[0]), (beyond, ends[1]), (0, 0)])
        shares = []
        for up in range(reach):
            for left in range(reach):
                top, start = beyond - up, beyond - left
                window = (slice(None), slice(top, top + down), None, slice(start, start + across), None)
                shares.append(mx.where(places[window] == tap_numbers(k, s, up, left), dy[window], 0))
        dx = in_pairs(mx.add, shares).reshape(n, down * s, across * s, channels)
        dx = dx[:, rows[0] : rows[0] + height, columns[0] : columns[0] + width]
        return dx, (cotangents[0] * mx.sign(y)).sum(axis=(0, 1, 2))  # what nobody asks for is never computed

    return lambda x, bias=0: maximum(x, mx.array(bias, x.dtype) if isinstance(bias, int) else bias)[0]


def tap_numbers(k, s, up, left):
    """Return the number of the tap, s x 1 x s x 1, in which the window `up` rows and `left` columns of
    windows before sees each cell of a block; UNSEEN where it sees it in none.
    """
    cells = [(a + s * up, b + s * left) for a in range(s) for b in range(s)]
    numbers = [i * k + j if max(i, j) < k else UNSEEN for i, j in cells]
    return mx.array(numbers, mx.uint8).reshape(s, 1, s, 1) if s > 1 else mx.array(numbers[0], mx.uint8)


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
