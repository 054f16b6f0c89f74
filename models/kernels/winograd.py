"""Convolutions of stride 1 with kernels of 3 x 3, by Winograd's algorithm: a quarter of the multiplications.

Tiles of 6 x 6 cells, 4 apart, make 4 x 4 outputs with 36 products instead of 144: F(4x4, 3x3) of Lavin and Gray, Fast
Algorithms for Convolutional Neural Networks, 2015. In float32 the error is 1e-5 of the largest output.
"""

import functools
import math

import mlx.core as mx
import numpy as np

from .arrays import join_cells, laid_out
from .bands import gather
from .blas import small_products

# for one dimension; those for two are Kronecker products of these
INPUT = np.array(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
     [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
)  # fmt: skip
KERNEL = np.array(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
) / 24  # fmt: skip
OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)  # fmt: skip
INPUT, KERNEL, OUTPUT = (np.kron(matrix, matrix) for matrix in (INPUT, KERNEL, OUTPUT))

STRIP = 2**24  # bytes of transformed tiles that are made at a time, about: VGG would need thrice the memory
BLOCK = 64  # channels that transform() takes at a time, at most, where small products are fast


def by_winograd(weight):
    """Return whether winograd() is the fastest form of a convolution of stride 1 with these weights."""
    return weight.shape[1:3] == (3, 3) and min(weight.shape[0], weight.shape[3]) >= 32


def winograd_factors(weight):
    """Return the 36 matrices, C x O, that winograd() multiplies with."""
    outputs, _, _, channels = weight.shape
    taps = weight.transpose(1, 2, 3, 0).reshape(9, channels, outputs)
    return mx.contiguous(mx.tensordot(mx.array(KERNEL, mx.float32), taps, axes=1))


def winograd(parts, top, size, left, factors, bias):
    """Do what correlate() does, for kernels of 3 x 3 by Winograd's 36 products, a strip of rows after the other."""
    rows, columns = size
    channels = max(factors.shape[1:])
    cells = 9 / 4 * len(parts[0]) * rows * columns * channels  # that the transformed tiles have
    strips = min(-(-rows // 4), max(1, round(4 * cells / STRIP)))
    cuts = [4 * (-(-rows // 4) * i // strips) for i in range(strips)] + [rows]
    made = [
        winograd_strip(parts, top + start, (stop - start, columns), left, factors, bias)
        for start, stop in zip(cuts, cuts[1:], strict=False)
    ]
    whole = join_cells(made, 1) if strips > 1 else made[0]
    return whole[:, :rows, :columns]


def winograd_strip(parts, top, size, left, factors, bias):
    """Make the outputs of the tiles that these rows and columns need."""
    (rows, columns), outputs = size, factors.shape[2]
    down, across = -(-rows // 4), -(-columns // 4)  # tiles
    n, _, width, _ = parts[0].shape
    x = gather(parts, top, top + 4 * down + 2, (left, 4 * across + 2 - width - left))
    block = block_of(outputs)
    y = winograd_products(x, factors).reshape(6, 6, n, down, across, -1, block)
    y = transform(OUTPUT, y).transpose(2, 3, 0, 4, 1, 5, 6)
    y = laid_out(y) if bias is None else y + bias.reshape(-1, block)
    return y.reshape(n, 4 * down, 4 * across, outputs)


def winograd_products(x, factors):
    """Transform the tiles of the padded x, and multiply them: 36 x tiles x O."""
    channels = x.shape[-1]
    if not small_products():
        return planes(INPUT, tiles(x)) @ factors
    made = transform(INPUT, tiles(x, channels)).transpose(2, 3, 4, 5, 0, 1, 6)  # as it lies in memory
    return mx.segmented_mm(made.reshape(-1, 36 * channels), factors.reshape(36 * channels, -1), segments(channels))


@functools.cache
def segments(channels):
    """Return where each of 36 matrices of `channels` columns begins and ends that lie side by side."""
    return mx.array([[i * channels, (i + 1) * channels] for i in range(36)], mx.uint32)


def tiles(x, block=None):
    """Cut the padded x into overlapping tiles: 6 x 6 x n x down x across x blocks x block of channels, a view."""
    n, height, width, channels = x.shape
    block = block or block_of(channels)
    down, across, row = (height - 2) // 4, (width - 2) // 4, width * channels
    shape = (6, 6, n, down, across, channels // block, block)
    return mx.as_strided(x, shape, (row, channels, height * row, 4 * row, 4 * channels, block, 1))


def planes(matrix, tiles):
    """Return transform() laid out for products: 36 x tiles x C."""
    made = transform(matrix, tiles)
    *_, blocks, block = made.shape
    return (laid_out(made) if small_products() else made).reshape(36, -1, blocks * block)


def transform(matrix, tiles):
    """Multiply the cells of each tile by a matrix. tiles: side x side x n x down x across x blocks x block of channels;
    likewise what is returned, a view.
    """
    side, _, *grid = tiles.shape
    matrix, new = mx.array(matrix, mx.float32), math.isqrt(len(matrix))
    if not small_products():
        return (matrix @ laid_out(tiles).reshape(side * side, -1)).reshape(new, new, *grid)
    tiles = laid_out(tiles.transpose(2, 3, 4, 5, 0, 1, 6)).reshape(-1, side * side, grid[-1])
    return (matrix @ tiles).reshape(*grid[:-1], new, new, grid[-1]).transpose(4, 5, 0, 1, 2, 3, 6)


def block_of(channels):
    """Return how many channels transform() takes at a time."""
    if not small_products():
        return channels
    return max(block for block in range(1, BLOCK + 1) if channels % block == 0)


def winograd_weight_gradient(x, dy):
    """Compute the gradient of winograd() for its weights: the same 36 products, each summed over the tiles."""
    n, rows, columns, outputs = dy.shape
    down, across = -(-rows // 4), -(-columns // 4)
    beyond = [(0, 0), (0, 4 * down - rows), (0, 4 * across - columns), (0, 0)]
    x, dy = mx.pad(x, beyond), mx.pad(dy, beyond)
    dy = dy.reshape(n, down, 4, across, 4, -1, block_of(outputs)).transpose(2, 4, 0, 1, 3, 5, 6)
    products = planes(OUTPUT.T, dy)
    taps = products.transpose(0, 2, 1) @ planes(INPUT, tiles(x))
    taps = mx.array(KERNEL.T, mx.float32) @ taps.reshape(36, -1)
    return taps.reshape(3, 3, outputs, -1).transpose(2, 0, 1, 3)
