"""Max and average pooling by torch's rules. Arrays N x H x W x C."""

import functools

import mlx.core as mx

from .arrays import along, on_cpu, overlap_add, parallel_streams
from .gpu import max_pool_gpu


def max_pool(x, kernel_size, stride, padding=0, ceil_mode=False):
    """Take the maximum of each window of N x H x W x C, by torch's rules.

    In ceil mode the last window may hang over the right and lower border, if it starts inside the image or its left
    padding. Raises ValueError where no window fits.
    """
    k, s, p = kernel_size, stride, padding
    rows, columns = ((p, ceil_padding(size, k, s, p) if ceil_mode else p) for size in x.shape[1:3])
    if min(x.shape[1] + sum(rows), x.shape[2] + sum(columns)) < k:  # MLX would make an empty map of it
        size = f"{x.shape[1] + sum(rows)} x {x.shape[2] + sum(columns)}"
        raise ValueError(f"a window of {k} x {k} is larger than its input, {size}")
    if not on_cpu():
        return max_pool_gpu(k, s, rows, columns)(x)
    if ceil_mode or p:
        x = mx.pad(x, [(0, 0), rows, columns, (0, 0)], constant_values=-float("inf"))
    return max_along(2, k, s)(max_along(1, k, s)(x))


@functools.cache
def max_along(axis, k, s):
    """Return a function of N x H x W x C: maxima of windows of k cells, s apart, along axis 1 or 2.

    Its gradient goes to the first of equal maxima, as torch's, by comparing: MLX's own scatters.
    """

    @mx.custom_function
    def maximum(x):
        return functools.reduce(mx.maximum, [seen(x, i) for i in range(k)])

    @maximum.vjp
    def maximum_vjp(x, dy, y):
        return parallel_streams(gradient, 3 - axis, x, dy, y)

    def seen(x, i):
        """Return what lies in cell i of each window."""
        count = (x.shape[axis] - k) // s + 1
        return along(axis, x, i, i + (count - 1) * s + 1, s)

    def gradient(x, dy, y):
        shares = []  # of each window's gradient, for its first cell, its second, ...
        for i in range(k - 1):
            rest = dy * mx.sign(y - seen(x, i))  # 0 where cell i is the maximum; cheaper than a comparison
            shares.append(dy - rest)
            dy = rest
        shares.append(dy)
        length = -(-x.shape[axis] // s)
        phases = [overlap_add(axis, shares[phase::s], length) for phase in range(s)]
        if s == 1:
            return phases[0]
        n, height, width, channels = phases[0].shape
        if axis == 1:
            dx = mx.stack(phases, axis=2).reshape(n, height * s, width, channels)
        else:
            dx = mx.concatenate(phases, axis=-1).reshape(n, height, width * s, channels)
        return along(axis, dx, 0, x.shape[axis])

    return maximum


def ceil_padding(size, k, s, p):
    """Return by how much ceil mode pads the end of a side of `size` cells with p in front (torch's formula)."""
    count = -(-(size + 2 * p - k) // s) + 1
    if (count - 1) * s >= size + p:
        count -= 1
    return max((count - 1) * s + k - size - p, 0)


def avg_pool_3x3(x):
    """Average 3 x 3 windows at stride 1 over a border of zeros that count: torch's avg_pool2d(x, 3, 1, padding=1)."""
    x = mx.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    x = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    return (x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]) * (1 / 9)


def adaptive_avg_pool(x, size, kernel_size=1, stride=1):
    """Average windows that are laid out on a map of size x size and scaled to the map at hand.

    A window [a, b) goes from floor(a H / size) to ceil(b H / size). Single cells make torch's AdaptiveAvgPool2d; on a
    map of that very size it is ordinary pooling with `kernel_size` and `stride`.
    """
    rows, columns = (windows(length, size, kernel_size, stride, x.dtype) for length in x.shape[1:3])
    x = mx.tensordot(rows, x, axes=[[1], [1]])  # rows x N x W x C
    x = mx.tensordot(columns, x, axes=[[1], [2]])  # columns x rows x N x C
    return x.transpose(2, 1, 0, 3)


def windows(length, size, kernel_size, stride, dtype):
    """Return the matrix that averages `length` cells over the windows of adaptive_avg_pool()."""
    matrix = []
    for first in range(0, size - kernel_size + 1, stride):
        start, end = first * length // size, -(-(first + kernel_size) * length // size)
        matrix.append([1 / (end - start) if start <= i < end else 0.0 for i in range(length)])
    return mx.array(matrix, dtype)
