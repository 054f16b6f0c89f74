"""Max and average pooling by torch's rules. Arrays N x H x W x C."""

import functools

import mlx.core as mx

from .arrays import along, full, on_cpu, overlap_add
from .bands import Bands, by_rows, differentiable, each, edges, gather, join, one
from .pooling_gpu import AROUND, Windows, max_pool_gpu
from .relu import relu


def max_pool(x, kernel_size, stride, padding=0, ceil_mode=False):
    """Take the maximum of each window of N x H x W x C, an array or Bands, by torch's rules.

    In ceil mode the last window may hang over the right and lower border, if it starts inside the image or its left
    padding. Raises ValueError where no window fits.
    """
    k, s, p = kernel_size, stride, padding
    rows, columns = ((p, ceil_padding(size, k, s, p) if ceil_mode else p) for size in x.shape[1:3])
    windows = Windows(k, s, rows, columns)
    if min(windows.padded(x.shape)) < k:  # MLX would make an empty map of it
        raise ValueError("a window of {0} x {0} is larger than its input, {1} x {2}".format(k, *x.shape[1:3]))
    before = getattr(x, "before_relu", None) if s > 1 else None  # of which the ReLU may be taken afterwards, of less
    if not on_cpu():
        if before is None:
            return each(max_pool_gpu(windows), x)
        return each(lambda before: max_pool_gpu(windows, relu=True)(before, x.bias), before)
    if before is not None:
        return relu(max_pool(before, k, s, p, ceil_mode))
    if windows == AROUND:
        x = each(lambda part: max_of_three(2, one(part)).parts[0], x)
        return by_rows(lambda bands: max_of_three(1, bands), x, x.shape[1])
    x = each(lambda x: max_of_columns(x, k, s, *columns), x)
    count = windows.size(x.shape)[0]
    return by_rows(lambda bands: max_of_rows(bands, k, s, p, count), x, count)


def max_of_three(axis, bands):
    """Return the maximum of each cell and its two neighbours along an axis, along which the bands follow each other.

    MLX changes a piece of an array in place with less traffic, and fewer operations, than cutting and joining takes.
    """
    first, second, last, but_first, but_last = (
        (slice(None),) * axis + (slice(*ends),) for ends in ((0, 1), (1, 2), (-1, None), (1, None), (0, -1))
    )
    lanes = list(enumerate(bands.streams))

    def forward(parts):
        outputs = []
        for i, stream in lanes:
            with mx.stream(stream):
                y = parts[i].at[but_first].maximum(parts[i][but_last])
                y = y.at[but_last].maximum(parts[i][but_first])
                y = y.at[first].maximum(parts[i - 1][last]) if i > 0 else y
                outputs.append(y.at[last].maximum(parts[i + 1][first]) if i + 1 < len(parts) else y)
        return outputs

    def cells_before(parts, i):
        x = full(parts[i].shape, parts[i].dtype, -float("inf")).at[but_first].maximum(parts[i][but_last])
        return x.at[first].maximum(parts[i - 1][last]) if i > 0 else x

    def backward(parts, dy, y):
        shares = []  # of a window's gradient: what the cell before its own gets, what its own, and what the cell behind
        for i, stream in lanes:
            with mx.stream(stream):
                shares.append(first_maxima([cells_before(parts, i), parts[i]], y[i], dy[i]))
        gradients = []
        for i, stream in lanes:
            before, own, behind = shares[i]
            with mx.stream(stream):
                above = shares[i - 1][2][last] if i > 0 else None
                if above is not None and own.shape[axis] > 1:
                    before = before.at[second].add(above)  # for the first row, in the order of one band
                elif above is not None:
                    own = own + above
                dx = own.at[but_last].add(before[but_first])
                dx = dx.at[but_first].add(behind[but_last])
                gradients.append(dx.at[last].add(shares[i + 1][0][first]) if i + 1 < len(parts) else dx)
        return gradients

    return Bands(differentiable(forward, backward)(bands.parts), bands.streams)


def max_of_columns(x, k, s, p, end):
    """Return the maxima of windows of k columns, s apart, of N x H x W x C with borders of p and `end` columns."""

    def seen(x):
        """Return what the windows see in their first column, their second, ... of k."""
        x = gather([x], 0, x.shape[1], (p, end), -float("inf"))
        return windows_along(2, x, k, s, (x.shape[2] - k) // s + 1)

    def forward(x):
        return functools.reduce(mx.maximum, seen(x))

    def backward(x, dy, y):
        return spread(2, [(-p, first_maxima(seen(x)[:-1], y, dy))], s, 0, x.shape[2])

    return differentiable(forward, backward)(x)


def max_of_rows(bands, k, s, p, rows):
    """Return the maxima of windows of k rows, s apart, of bands of rows with a border of p rows above."""
    inner, outer = edges(bands, rows), edges(bands, bands.shape[1])

    def seen(parts, start, stop):
        """Return what the windows start to stop see in their first row, their second, ... of k."""
        x = gather(parts, start * s - p, (stop - 1) * s - p + k, fill=-float("inf"))
        return windows_along(1, x, k, s, stop - start)

    def forward(parts):
        outputs = []
        for stream, ends in zip(bands.streams, inner, strict=True):
            with mx.stream(stream):
                outputs.append(functools.reduce(mx.maximum, seen(parts, *ends)))
        return outputs

    def backward(parts, dy, y):
        shares = []
        for i, (stream, ends) in enumerate(zip(bands.streams, inner, strict=True)):
            with mx.stream(stream):
                found = first_maxima(seen(parts, *ends)[:-1], y[i], dy[i])
            shares.append((ends[0] * s - p, found))
        gradients = []
        for stream, (start, stop) in zip(bands.streams, outer, strict=True):
            with mx.stream(stream):
                gradients.append(spread(1, shares, s, start, stop))
        return gradients

    return Bands(differentiable(forward, backward)(bands.parts), bands.streams)


def windows_along(axis, x, k, s, count):
    """Return what `count` windows of k cells, s apart along an axis, see in their first cell, their second, ..."""
    return [along(axis, x, i, i + (count - 1) * s + 1, s) for i in range(k)]


def first_maxima(cells, y, dy):
    """Share the gradient dy of the maxima y of windows out: to the first of equal cells, as torch does.

    cells: what lies in each cell of the windows but their last, which gets what is left.
    """
    shares = []
    for cell in cells:
        rest = dy * mx.sign(y - cell)  # 0 where this cell is the maximum; cheaper than a comparison
        shares.append(dy - rest)
        dy = rest
    return [*shares, dy]


def spread(axis, shares, s, start, stop):
    """Return the sums of `shares` in the cells start to stop along an axis.

    shares: of bands, each (the cell where its first window begins, what windows s apart give their first cell, their
    second, ...).
    """
    parts = [(first + i - start, array) for first, arrays in shares for i, array in enumerate(arrays)]
    return overlap_add(axis, parts, stop - start, s)


def ceil_padding(size, k, s, p):
    """Return by how much ceil mode pads the end of a side of `size` cells with p in front (torch's formula)."""
    count = -(-(size + 2 * p - k) // s) + 1
    if (count - 1) * s >= size + p:
        count -= 1
    return max((count - 1) * s + k - size - p, 0)


def avg_pool_3x3(x):
    """Average 3 x 3 windows at stride 1 over a border of zeros that count: torch's avg_pool2d(x, 3, 1, padding=1)."""
    return by_rows(average_3x3, x, x.shape[1])


def average_3x3(bands):
    lanes = list(zip(bands.streams, edges(bands, bands.shape[1]), strict=True))

    def average(parts):
        outputs = []
        for stream, (start, stop) in lanes:
            with mx.stream(stream):
                x = gather(parts, start - 1, stop + 1, (1, 1))
                x = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
                outputs.append((x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]) * (1 / 9))
        return outputs

    # its own gradient, since a cell lies in the windows of its neighbours
    return Bands(differentiable(average, lambda parts, dy, _: average(dy))(bands.parts), bands.streams)


def adaptive_avg_pool(x, size, kernel_size=1, stride=1):
    """Average windows that are laid out on a map of size x size and scaled to the map at hand.

    A window [a, b) goes from floor(a H / size) to ceil(b H / size). Single cells make torch's AdaptiveAvgPool2d; on a
    map of that very size it is ordinary pooling with `kernel_size` and `stride`.
    """
    x = join(x)
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
