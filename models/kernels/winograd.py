"""Convolutions of stride 1 with kernels of 3 x 3, by Winograd's algorithm: a quarter of the multiplications.

Tiles of 6 x 6 cells, 4 apart, make 4 x 4 outputs with 36 products instead of 144: F(4x4, 3x3) of Lavin and Gray, Fast
Algorithms for Convolutional Neural Networks, 2015. In float32 the error is 1e-5 of the largest output.
"""

import functools

import mlx.core as mx
import numpy as np

from .arrays import join_cells, laid_out
from .bands import gather
from .blas import small_products

# for one dimension; those for two are Kronecker products of these
LINE = np.array(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
     [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
)  # fmt: skip
KERNEL = np.array(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
) / 24  # fmt: skip
OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)  # fmt: skip
INPUT, KERNEL, OUTPUT = (mx.array(np.kron(matrix, matrix), mx.float32) for matrix in (LINE, KERNEL, OUTPUT))
LINE = mx.array(LINE, mx.float32)
OUTPUT_GRADIENT = OUTPUT.T

STRIP = 2**24  # bytes of transformed tiles that are made at a time, about: VGG would need thrice the memory
BLOCK = 64  # channels of outputs that tile_by_tile() makes at a time, at most


def by_winograd(weight):
    """Return whether winograd() is the fastest form of a convolution of stride 1 with these weights."""
    return weight.shape[1:3] == (3, 3) and min(weight.shape[0], weight.shape[3]) >= 32


def winograd_factors(weight):
    """Return the 36 matrices, C x O, that winograd() multiplies with, one below the other."""
    outputs, _, _, channels = weight.shape
    taps = weight.transpose(1, 2, 3, 0).reshape(9, channels * outputs)
    return mx.contiguous((KERNEL @ taps).reshape(36 * channels, outputs))


def winograd(parts, top, size, left, factors, bias):
    """Do what correlate() does, for kernels of 3 x 3 by Winograd's 36 products, a strip of rows after the other."""
    rows, columns = size
    channels = max(parts[0].shape[-1], factors.shape[1])
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
    (rows, columns), width = size, parts[0].shape[2]
    down, across = -(-rows // 4), -(-columns // 4)  # tiles
    x = gather(parts, top, top + 4 * down + 2, (left, 4 * across + 2 - width - left))
    y = tile_by_tile(x, factors) if small_products() else plane_by_plane(x, factors)
    y = laid_out(y) if bias is None else y + bias.reshape(y.shape[-2:])
    return y.reshape(-1, 4 * down, 4 * across, factors.shape[1])


def tile_by_tile(x, factors):
    """Make the outputs of the padded x, transforming each tile by a small product of its own.

    Returns n x tiles down x 4 x tiles across x 4 x blocks x block of channels, a view.
    """
    n, down, across, outputs = len(x), *tile_counts(x), factors.shape[1]
    made = mx.segmented_mm(transform_lines(x), factors, segments(x.shape[-1]))
    block = max(block for block in range(1, BLOCK + 1) if outputs % block == 0)
    made = laid_out(made.reshape(36, -1, outputs // block, block).transpose(1, 2, 0, 3)).reshape(-1, 36, block)
    made = of_each(OUTPUT, len(made)) @ made
    return made.reshape(n, down, across, -1, 4, 4, block).transpose(0, 1, 4, 2, 5, 3, 6)


def transform_lines(x):
    """Transform the overlapping tiles of the padded x, along their columns and then along their rows: tiles x (36 C).

    Nothing is laid out for it: six rows of x are one matrix, and so are six cells of a row, wherever they begin.
    """
    n, height, width, channels = x.shape
    (down, across), row = tile_counts(x), width * channels
    rows = mx.as_strided(x, (n, down, 6, row), (height * row, 4 * row, row, 1))
    rows = of_each(LINE, n, down) @ rows
    cells = mx.as_strided(rows, (n * down, across, 6, 6, channels), (6 * row, 4 * channels, row, channels, 1))
    return (of_each(LINE, n * down, across, 6) @ cells).reshape(-1, 36 * channels)


def plane_by_plane(x, factors):
    """Do what tile_by_tile() does by large products alone, for all tiles together."""
    tiles = tiles_of(x)
    factors = factors.reshape(36, x.shape[-1], -1)
    made = OUTPUT @ (planes(INPUT, tiles) @ factors).reshape(36, -1)
    return made.reshape(4, 4, *tiles.shape[:3], 1, -1).transpose(2, 3, 0, 4, 1, 5, 6)


def tiles_of(x):
    """Cut the padded x into overlapping tiles: n x down x across x 6 x 6 x C, a view."""
    n, height, width, channels = x.shape
    row = width * channels
    shape = (n, *tile_counts(x), 6, 6, channels)
    return mx.as_strided(x, shape, (height * row, 4 * row, 4 * channels, row, channels, 1))


def tile_counts(x):
    """Return how many tiles the padded x has (down, across)."""
    return (x.shape[1] - 2) // 4, (x.shape[2] - 2) // 4


def transform_each(matrix, tiles):
    """Multiply the cells of each of n x down x across x side x side x C by a matrix: tiles x cells x C."""
    *_, side, _, channels = tiles.shape
    cells = laid_out(tiles).reshape(-1, side * side, channels)
    return of_each(matrix, len(cells)) @ cells


@functools.lru_cache(maxsize=4096)
def of_each(matrix, *counts):
    """Return a matrix as that of each of so many products, which is no copy."""
    matrices = mx.broadcast_to(matrix, (*counts, *matrix.shape))
    mx.eval(matrices)
    return matrices


def planes(matrix, tiles):
    """Do what transform_each() does, and return it laid out for products: cells x tiles x C."""
    if small_products():
        return laid_out(transform_each(matrix, tiles).transpose(1, 0, 2))
    *_, side, _, channels = tiles.shape
    tiles = laid_out(tiles.transpose(3, 4, 0, 1, 2, 5))
    return (matrix @ tiles.reshape(side * side, -1)).reshape(len(matrix), -1, channels)


@functools.cache
def segments(channels):
    """Return where each of 36 matrices of `channels` columns begins and ends that lie side by side."""
    return mx.array([[i * channels, (i + 1) * channels] for i in range(36)], mx.uint32)


def winograd_weight_gradient(x, dy):
    """Compute the gradient of winograd() for its weights: the same 36 products, each summed over the tiles."""
    n, rows, columns, outputs = dy.shape
    down, across = -(-rows // 4), -(-columns // 4)
    beyond = [(0, 0), (0, 4 * down - rows), (0, 4 * across - columns), (0, 0)]
    x, dy = mx.pad(x, beyond), mx.pad(dy, beyond)
    dy = dy.reshape(n, down, 4, across, 4, outputs).transpose(0, 1, 3, 2, 4, 5)
    taps = planes(OUTPUT_GRADIENT, dy).transpose(0, 2, 1) @ planes(INPUT, tiles_of(x))
    taps = KERNEL.T @ taps.reshape(36, -1)
    return taps.reshape(3, 3, outputs, -1).transpose(2, 0, 1, 3)
