"""Convolutions of stride 1 with kernels of 3 x 3, by Winograd's algorithm: a quarter of the multiplications.

Tiles of 6 x 6 cells, 4 apart, make 4 x 4 outputs with 36 products instead of 144: F(4x4, 3x3) of Lavin and Gray, Fast
Algorithms for Convolutional Neural Networks, 2015. In float32 the error is 1e-5 of the largest output.
"""

import functools

import mlx.core as mx
import numpy as np

from .arrays import after, join_cells, laid_out
from .bands import gather
from .blas import SMALL_PRODUCT, small_products

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
INPUT = mx.array(INPUT, mx.float32)
KERNEL, OUTPUT = (mx.array(np.kron(matrix, matrix), mx.float32) for matrix in (KERNEL, OUTPUT))
OUTPUT_GRADIENT = OUTPUT.T

STRIP = 2**22  # bytes of transformed tiles that are made at a time, about: a core's cache has them where they are read
BLOCKS = (32, 16)  # channels of outputs that a small product makes, where they can be cut so


def by_winograd(weight):
    """Return whether winograd() is the fastest form of a convolution of stride 1 with these weights."""
    return weight.shape[1:3] == (3, 3) and min(weight.shape[0], weight.shape[3]) >= 32


def winograd_factors(weight):
    """Return the 36 matrices that winograd() multiplies with, in blocks of outputs: blocks x 36 x 1 x C x block."""
    outputs, _, _, channels = weight.shape
    sizes = (*BLOCKS, outputs) if small_products() else (outputs,)
    block = next(size for size in sizes if outputs % size == 0)
    taps = mx.contiguous(weight.reshape(-1, block, 9, channels).transpose(0, 2, 3, 1))
    factors = of_each(KERNEL, len(taps)) @ taps.reshape(-1, 9, channels * block)
    return factors.reshape(-1, 36, 1, channels, block)


def winograd(parts, top, size, left, factors, bias):
    """Do what correlate() does, for kernels of 3 x 3 by Winograd's 36 products, a strip of rows after the other."""
    rows, columns = size
    channels = max(parts[0].shape[-1], len(factors) * factors.shape[-1])
    cells = 9 / 4 * len(parts[0]) * rows * columns * channels  # that the transformed tiles have
    strips = min(-(-rows // 4), max(1, round(4 * cells / STRIP)))
    cuts = [4 * (-(-rows // 4) * i // strips) for i in range(strips)] + [rows]
    made = []
    for start, stop in zip(cuts, cuts[1:], strict=False):
        strip = top + start, (stop - start, columns), left
        made.append(winograd_strip(after(made, *parts), *strip, factors, bias))
    whole = join_cells(made, 1) if strips > 1 else made[0]
    return whole[:, :rows, :columns]


def winograd_strip(parts, top, size, left, factors, bias):
    """Make the outputs of the tiles that these rows and columns need."""
    n, (down, across), (blocks, *_, block) = len(parts[0]), tiles(size), factors.shape
    made = products(input_planes(parts, top, size, left), factors, n * down)
    y = of_each(OUTPUT, blocks) @ made.reshape(blocks, 36, -1)
    y = y.reshape(blocks, 4, 4, n, down, across, block).transpose(3, 4, 1, 5, 2, 0, 6)
    y = laid_out(y) if bias is None else y + bias.reshape(blocks, block)
    return y.reshape(n, 4 * down, 4 * across, blocks * block)


def tiles(size):
    """Return how many tiles make so many rows and columns of outputs."""
    return [-(-side // 4) for side in size]


def input_planes(parts, top, size, left):
    """Transform the tiles that so many rows and columns of outputs need, which overlap, along columns, then along rows:
    36 x tiles x C.
    """
    (down, across), width = tiles(size), parts[0].shape[2]
    x = gather(parts, top, top + 4 * down + 2, (left, 4 * across + 2 - width - left))
    n, height, width, channels = x.shape
    row = width * channels
    rows = mx.as_strided(x, (n, down, 6, row), (height * row, 4 * row, row, 1))  # six rows are a matrix as they lie
    rows = of_each(INPUT, n, down) @ rows
    cells = mx.as_strided(rows, (6, 6, n * down, across, channels), (row, channels, 6 * row, 4 * channels, 1))
    return (of_each(INPUT, 6) @ laid_out(cells).reshape(6, 6, -1)).reshape(36, -1, channels)


def products(planes, factors, rows):
    """Multiply 36 x tiles x C, whose tiles lie in so many rows, with winograd_factors(): blocks x 36 x tiles x block.

    Each product is small enough, if a row of tiles is, for the BLAS to take its matrices as they lie.
    """
    _, tiles, channels = planes.shape
    size = tiles * channels * factors.shape[-1]
    most = SMALL_PRODUCT if small_products() else size
    pieces = next(n for n in range(1, rows + 1) if rows % n == 0 and (size <= n * most or n == rows))
    return planes.reshape(36, pieces, -1, channels) @ factors


@functools.lru_cache(maxsize=4096)
def of_each(matrix, *counts):
    """Return a matrix as that of each of so many products, which is no copy."""
    matrices = mx.broadcast_to(matrix, (*counts, *matrix.shape))
    mx.eval(matrices)
    return matrices


def winograd_weight_gradient(parts, top, left, dy):
    """Compute the gradient of winograd() for its weights: the same 36 products, each summed over the tiles.

    Where winograd() took one strip, a compiled step still has its input_planes().
    """
    n, rows, columns, outputs = dy.shape
    down, across = tiles((rows, columns))
    planes = input_planes(parts, top, (rows, columns), left)
    dy = gather([dy], 0, 4 * down, (0, 4 * across - columns))
    dy = laid_out(dy.reshape(n, down, 4, across, 4, outputs).transpose(2, 4, 0, 1, 3, 5))
    dy = (OUTPUT_GRADIENT @ dy.reshape(16, -1)).reshape(36, -1, outputs)
    taps = KERNEL.T @ (dy.transpose(0, 2, 1) @ planes).reshape(36, -1)
    return taps.reshape(3, 3, outputs, -1).transpose(2, 0, 1, 3)
