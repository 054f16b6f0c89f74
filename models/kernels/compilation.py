"""Functions that a GPU computes in fewer kernels."""

import mlx.core as mx

from .arrays import on_cpu


def compiled(function):
    """Return a function of arrays that on a GPU is compiled for shapes that come again.

    The first call with a shape is not: what layers keep of their weights is then there, and is a constant for the
    calls that follow. What is compiled goes with the function that is returned, so that nothing piles up.
    """
    fast, seen = mx.compile(function), set()

    def call(*arrays):
        shapes = tuple((array.shape, array.dtype) for array in arrays)
        if on_cpu() or shapes not in seen:
            seen.add(shapes)
            return function(*arrays)
        return fast(*arrays)

    return call
