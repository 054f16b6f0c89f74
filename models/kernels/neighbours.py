"""The maximum of each cell and the eight around it, on a CPU: what Inception modules pool with.

MLX changes a piece of an array in place with less traffic, and fewer operations, than cutting and joining pieces takes.
N x H x W x C, an array or Bands; along the columns first, then along the rows.
"""

import mlx.core as mx

from .arrays import full
from .bands import Bands, by_rows, differentiable, each, one


def max_of_neighbours(x):
    """Return max_pool(x, 3, 1, 1)."""
    x = each(lambda part: max_of_three(2, one(part)).parts[0], x)
    return by_rows(lambda bands: max_of_three(1, bands), x, x.shape[1])


def max_of_three(axis, bands):
    """Return the maximum of each cell and its two neighbours along an axis, along which the bands follow each other."""
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
                # the first of equal cells gets all, as in torch; the sign is 0 where a cell is the maximum
                rest = dy[i] * mx.sign(y[i] - cells_before(parts, i))
                behind = rest * mx.sign(y[i] - parts[i])
                shares.append((dy[i] - rest, rest - behind, behind))
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
