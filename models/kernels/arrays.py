"""What the kernels share: where MLX computes, slices and sums along an axis."""

import functools

import mlx.core as mx


def on_cpu():
    """Return whether MLX computes on the CPU."""
    return mx.default_device() == mx.Device(mx.cpu)


def along(axis, x, start, stop, step=1):
    """Slice axis 0, 1 (rows) or 2 (columns) of N x H x W x C."""
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


def laid_out(x):
    """Return a copy of a slice, or of another view: MLX adds rows of cells by vectors, and copies them one by one."""
    return x + 0


def wide(x):
    """Return x with two channels in one, which are copied in half the time; as it is where it has no pairs of them.

    Only for what is laid out in memory: a view would be copied for it. There is no gradient.
    """
    return x.view(mx.int64) if x.dtype.size == 4 and x.shape[-1] % 2 == 0 else x


def join_cells(arrays, axis):
    """Concatenate arrays that are laid out in memory; there is no gradient."""
    if any(x.shape[-1] % 2 for x in arrays):
        return mx.concatenate(arrays, axis=axis)
    return mx.concatenate([wide(x) for x in arrays], axis=axis).view(arrays[0].dtype)


def overlap_add(axis, parts, length):
    """Sum `parts`, each (first cell along `axis`, array), in an array of `length` cells, which they may overhang."""
    spans = [(start, start + part.shape[axis], part) for start, part in parts]
    cuts = sorted({0, length} | {min(max(end, 0), length) for start, stop, _ in spans for end in (start, stop)})
    pieces = []
    for start, stop in zip(cuts, cuts[1:], strict=False):
        here = [along(axis, part, start - first, stop - first) for first, end, part in spans if first <= start < end]
        here = here or [mx.repeat(mx.zeros_like(along(axis, parts[0][1], 0, 1)), stop - start, axis)]
        pieces.append(functools.reduce(mx.add, here) if len(here) > 1 else laid_out(here[0]))
    return join_cells(pieces, axis) if len(pieces) > 1 else pieces[0]
