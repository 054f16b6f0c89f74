"""What the kernels share: where MLX computes, slices and sums along an axis."""

import functools

import mlx.core as mx


def on_cpu():
    """Return whether MLX computes on the CPU."""
    return mx.default_device() == mx.Device(mx.cpu)


def along(axis, x, start, stop, step=1):
    """Slice axis 0, 1 (rows) or 2 (columns) of N x H x W x C."""
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


def overlap_add(axis, parts, length):
    """Sum `parts`, each (first cell along `axis`, array), in an array of `length` cells, which they may overhang."""
    spans = [(start, start + part.shape[axis], part) for start, part in parts]
    cuts = sorted({0, length} | {min(max(end, 0), length) for start, stop, _ in spans for end in (start, stop)})
    pieces = []
    for start, stop in zip(cuts, cuts[1:], strict=False):
        here = [along(axis, part, start - first, stop - first) for first, end, part in spans if first <= start < end]
        here = here or [mx.repeat(mx.zeros_like(along(axis, parts[0][1], 0, 1)), stop - start, axis)]
        pieces.append(functools.reduce(mx.add, here))
    return mx.concatenate(pieces, axis=axis)
