"""The move of a zoom's frames on MLX: what dataset/camera.py does with SciPy, which is the reference, but faster.

A cubic spline through the samples of an image is a sum of bumps, one a sample, whose heights (coefficients) come from
the samples by a linear filter that falls off fast; the image goes on beyond its border, reflected.
Source: Unser, Splines: A Perfect Fit for Signal and Image Processing, 1999.
"""

import mlx.core as mx
import numpy as np

from dataset import camera

from ..kernels.arrays import on_cpu

POLE = 3**0.5 - 2  # of the filter
REACH = 20  # samples to either side that a coefficient depends on; those beyond count for less than 1e-11
BLOCK = 64  # rows of a matrix that a CPU multiplies at once, since nearly all others of its numbers are zeros


def transform_view(image, step):
    """Return the next view of an image, H x W x 3 float32, as `step` says; see camera.transform_view()."""
    matrix, offset = camera.view_map(image.shape, step)
    if step.rotate and on_cpu():
        return camera.transform_view(image, step)  # SciPy gathers faster there
    x = mx.array(image)
    if step.rotate:
        view = gather(coefficients(coefficients(x, 0), 1), matrix, offset)
    else:
        rows, columns = (spline_matrix(*sides) for sides in zip(image.shape, np.diag(matrix), offset, strict=False))
        view = along_axis(columns, along_axis(rows, x, 0), 1)
    return np.array(mx.clip(view, 0, 255))


def along_axis(matrix, x, axis):
    """Multiply what lies along axis 0 or 1 of H x W x C with a matrix."""
    if axis == 1:
        return along_axis(matrix, x.transpose(1, 0, 2), 0).transpose(1, 0, 2)
    samples, block = x.reshape(len(x), -1), BLOCK if on_cpu() else len(matrix)
    products = []
    for start in range(0, len(matrix), block):
        rows = matrix[start : start + block]
        seen = np.flatnonzero(rows.any(axis=0))
        products.append(mx.array(rows[:, seen[0] : seen[-1] + 1]) @ samples[seen[0] : seen[-1] + 1])
    return mx.concatenate(products).reshape(-1, *x.shape[1:])


def spline_matrix(length, scale, offset):
    """Return the matrix that makes of `length` samples those at scale * i + offset."""
    places = np.arange(length) * scale + offset
    first = np.floor(places).astype(int) - 1  # of the four coefficients that a place depends on
    distances = np.abs(np.arange(2 * REACH + 4) - REACH - np.arange(4)[:, None])
    return scattered(length, first - REACH, np.stack(bumps(places - first - 1), axis=1) @ filter_at(distances))


def coefficients(x, axis):
    """Return the coefficients along an axis of H x W x C."""
    length = x.shape[axis]
    taps = np.tile(filter_at(np.abs(np.arange(-REACH, REACH + 1))), (length, 1))
    return along_axis(scattered(length, np.arange(length) - REACH, taps), x, axis)


def filter_at(distances):
    """Return what a sample adds to the coefficient that many samples away."""
    return 6 * POLE / (POLE**2 - 1) * POLE**distances


def bumps(t):
    """Return the heights of the four bumps about a place `t`, 0 to 1, behind the second's top."""
    return [(1 - t) ** 3 / 6, (4 - 6 * t**2 + 3 * t**3) / 6, (1 + 3 * t + 3 * t**2 - 3 * t**3) / 6, t**3 / 6]


def scattered(length, first, values):
    """Return the square float32 matrix with values[i] in row i, from column first[i] on, reflected at its borders."""
    matrix, rows = np.zeros((length, length)), np.arange(length)[:, None]
    np.add.at(matrix, (rows, reflect(first[:, None] + np.arange(values.shape[1]), length)), values)
    return matrix.astype(np.float32)


def reflect(places, length):
    """Map whole-numbered places beyond a side to those within that they mirror; the border is between two samples."""
    last = 2 * length - 1
    return (last - abs(2 * (places % (2 * length)) - last)) // 2


def gather(coefficients, matrix, offset):
    """Return the spline at matrix @ (row, column) + offset of each sample of H x W x C."""
    height, width, channels = coefficients.shape
    rows, t = places(height, width, matrix[0], offset[0], height)
    columns, u = places(height, width, matrix[1], offset[1], width)
    flat, total = coefficients.reshape(-1, channels), 0
    for i, bump in enumerate(bumps(t)):
        row = reflect(rows + (i - 1), height) * width
        for j, other in enumerate(bumps(u)):
            total = total + flat[row + reflect(columns + (j - 1), width)] * (bump * other)[..., None]
    return total


def places(height, width, factors, offset, length):
    """Return factors @ (row, column) + offset of each cell, whole number and rest, each H x W.

    The whole number is less what reflects a side of `length` twice. In halves, since the sum in float32 would be off by
    thousandths of a sample.
    """
    (down, y), (across, x) = (
        np.divmod(np.arange(side) * factor + start, 1)
        for side, factor, start in ((height, factors[0], offset), (width, factors[1], 0))
    )
    rest = mx.array(y.astype(np.float32))[:, None] + mx.array(x.astype(np.float32))
    carry = mx.floor(rest)
    down, across = (mx.array((part % (2 * length)).astype(np.int32)) for part in (down, across))
    whole = down[:, None] + across + carry.astype(mx.int32)
    return whole, rest - carry
