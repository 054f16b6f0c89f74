"""What the kernels share: where MLX computes, slices and sums along an axis, and work on streams side by side."""

import functools
import os
import threading

import mlx.core as mx

of_this_thread = threading.local()


def on_cpu():
    """Return whether MLX computes on the CPU."""
    return mx.default_device() == mx.Device(mx.cpu)


def along(axis, x, start, stop, step=1):
    """Slice axis 1 (rows) or 2 (columns) of N x H x W x C."""
    cells = slice(start, stop, step)
    return x[:, cells] if axis == 1 else x[:, :, cells]


def overlap_add(axis, parts, length):
    """Sum `parts`, each lying a cell further along `axis` than the one before, in an array of `length` cells."""
    count = parts[0].shape[axis]
    cuts = sorted({0, length} | {min(end, length) for i in range(len(parts)) for end in (i, i + count)})
    pieces = []
    for start, stop in zip(cuts, cuts[1:], strict=False):
        here = [along(axis, part, start - i, stop - i) for i, part in enumerate(parts) if i <= start < i + count]
        here = here or [mx.zeros_like(along(axis, parts[0], 0, stop - start))]
        pieces.append(functools.reduce(mx.add, here))
    return mx.concatenate(pieces, axis=axis)


def parallel_streams(function, axis, *arrays):
    """Compute function(*arrays) in pieces along `axis`, each on a stream of its own.

    On a CPU, MLX computes what is no matrix product on one thread a stream.
    """
    streams = cpu_streams()
    if arrays[0].nbytes < 2**20 or arrays[0].shape[axis] < len(streams):
        return function(*arrays)
    cuts = [arrays[0].shape[axis] * i // len(streams) for i in range(len(streams) + 1)]
    pieces = []
    for stream, start, stop in zip(streams, cuts, cuts[1:], strict=False):
        with mx.stream(stream):
            pieces.append(function(*(along(axis, array, start, stop) for array in arrays)))
    return mx.concatenate(pieces, axis=axis)


def cpu_streams():
    """Return the streams that parallel_streams() spreads work over; MLX has them for one Python thread each."""
    if not hasattr(of_this_thread, "streams"):
        of_this_thread.streams = [mx.new_stream(mx.cpu) for _ in range(min(4, os.cpu_count() or 1))]
    return of_this_thread.streams
