"""What the kernels share: where MLX computes, slices and sums along an axis."""

import functools

import mlx.core as mx
import numpy as np


def on_cpu():
    """Return whether MLX computes on the CPU."""
    return mx.default_device() == mx.Device(mx.cpu)


def along(axis, x, start, stop, step=1):
    """Slice axis 0, 1 (rows) or 2 (columns) of N x H x W x C."""
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


def laid_out(x):
    """Return a copy of a slice, or of another view, in the order of its axes.

    MLX adds rows of cells by vectors, and copies them one by one. To a scalar it would add in the order in which a
    transposed array lies in memory.
    """
    return x + full(x.shape, x.dtype, of=x.shape[-1])


def after(made, *arrays):
    """Return [arrays], which wait for the last of `made`, if there is one.

    Pieces of work are then finished one by one, while a cache has them: MLX would take all of them through an operation
    before it goes on to the next.
    """
    return mx.depends(list(arrays), made[-1:]) if made else list(arrays)


def sum_of(arrays):
    """Return the sum of arrays. The built-in sum() would add the first of them to 0, a pass over memory more."""
    return functools.reduce(mx.add, arrays)


def at_least_zero(x):
    """Return max(x, 0)."""
    return mx.maximum(x, full(x.shape, x.dtype) if on_cpu() else 0)


@functools.lru_cache(maxsize=4096)
def full(shape, dtype, value=0.0, of=1):
    """Return an array full of a value, the last `of` of whose cells alone are in memory; it is computed once."""
    x = mx.broadcast_to(mx.full(of, value, dtype), shape)
    mx.eval(x)
    return x


def wide(x):
    """Return x with two channels in one, which are copied in half the time; as it is where it has no pairs of them.

    Only for what is laid out in memory: a view would be copied for it. There is no gradient.
    """
    return x.view(mx.int64) if x.dtype.size == 4 and x.shape[-1] % 2 == 0 else x


def mean_size(x):
    """Return the mean of |x|, H x W x C; on a CPU along the columns first, since MLX adds rows by vectors."""
    return mx.abs(x).sum(axis=0).mean() / len(x) if on_cpu() else mx.abs(x).mean()


def roll(x, down, right):
    """Shift H x W x C cyclically, as mx.roll does; on a CPU in half the time, on a GPU by one kernel for four."""
    height, width, channels = x.shape
    if not on_cpu():
        rows, columns = mx.array(shifted(height, down)), mx.array(shifted(width, right))
        return x[rows[:, None], columns]
    right = (right + width // 2) % width - width // 2
    cells, first = x.reshape(height * width, channels), -(down * width + right) % (height * width)
    y = mx.concatenate([cells[first:], cells[:first]]).reshape(x.shape)
    # what left a row has entered another than its own: that strip is mended
    if right > 0:
        y[:, :right] = mx.roll(x[:, -right:], down, axis=0)
    elif right < 0:
        y[:, right:] = mx.roll(x[:, :-right], down, axis=0)
    return y


def shifted(length, by):
    """Return where each of `length` cells comes from that are shifted cyclically."""
    return (np.arange(length, dtype=np.int32) - by) % length


def blank(shape, dtype, value=0.0):
    """Return an array full of a value for wide() slices to be written into, the first of which makes a copy of it."""
    *rest, channels = shape
    if dtype.size != 4 or channels % 2:
        kept = full((*rest, channels), dtype, value)
    else:
        kept = full((*rest, channels // 2), mx.int64, pair(value, dtype))
    return kept[...]  # another Python object: what is written changes the object


@functools.cache
def pair(value, dtype):
    """Return the int64 whose halves are two values of a dtype of 4 bytes."""
    return mx.array([value] * 2, dtype).view(mx.int64).item()


def join_cells(arrays, axis):
    """Concatenate arrays that are laid out in memory; there is no gradient."""
    if any(x.shape[-1] % 2 for x in arrays):
        return mx.concatenate(arrays, axis=axis)
    return mx.concatenate([wide(x) for x in arrays], axis=axis).view(arrays[0].dtype)


def overlap_add(axis, parts, length, step=1):
    """Sum `parts` in an array of `length` cells along `axis`, which they may overhang: each (the place of its first
    cell, array), whose cells are to lie `step` apart. There is no gradient.
    """
    dtype, shape = parts[0][1].dtype, list(parts[0][1].shape)
    if step == 1:
        return mx.concatenate([piece for *_, piece in sums(axis, parts, length)], axis=axis).view(dtype)
    shape[axis] = length
    whole = blank(shape, dtype)
    for phase in range(step):
        here = [(first // step, array) for first, array in parts if first % step == phase]
        for start, stop, piece in sums(axis, here, len(range(phase, length, step))):
            places = slice(phase + start * step, phase + (stop - 1) * step + 1, step)
            whole[(slice(None),) * axis + (places,)] = piece
    return whole.view(dtype)


def sums(axis, parts, length):
    """Yield (start, stop, wide() sum of what lies there) of stretches that make up `length` cells along an axis.

    parts: as those of overlap_add().
    """
    spans = [(first, first + array.shape[axis], array) for first, array in parts]
    cuts = sorted({0, length} | {min(max(end, 0), length) for *ends, _ in spans for end in ends})
    for start, stop in zip(cuts, cuts[1:], strict=False) if parts else ():
        here = [along(axis, x, start - first, stop - first) for first, end, x in spans if first <= start < end]
        if here:
            yield start, stop, wide(sum_of(here))
        else:
            shape = list(parts[0][1].shape)
            shape[axis] = stop - start
            yield start, stop, blank(shape, parts[0][1].dtype)
