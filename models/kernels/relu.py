"""The ReLU of every network, and the one that lets a blocked gradient through."""

import contextlib

import mlx.core as mx

from . import bands
from .arrays import at_least_zero, join_cells, on_cpu
from .bands import Bands, differentiable, each, join

redirected = False  # set by redirected_relus()


def relu(x):
    """Compute max(x, 0). Every ReLU of the networks comes through here, so that redirected_relus() finds them all."""
    if redirected:
        return redirected_relu(join(x))
    y = each(plain_relu, x)
    if isinstance(y, Bands):
        y.before_relu = x
    return y


def plain_relu(x):
    return differentiable(at_least_zero, plain_relu_gradient)(x)


def plain_relu_gradient(x, dy, y):
    return dy * mx.sign(y)  # a third of the passes over memory that the maximum's own gradient makes


def concatenate(arrays):
    """Concatenate arrays or Bands N x H x W x C along the channels. On a CPU, the ReLUs that made all become one."""
    before = [getattr(x, "before_relu", None) for x in arrays]
    if not on_cpu() or any(x is None for x in before):
        return bands.concatenate(arrays)
    ends = bands.channel_ends(arrays)

    def gradient(_, dy, y):
        return [d * s for d, s in zip(mx.split(dy, ends, -1), mx.split(mx.sign(y), ends, -1), strict=True)]

    joined = differentiable(lambda *parts: at_least_zero(join_cells(parts, -1)), gradient)
    y = each(joined, *before)
    y.before_relu = bands.concatenate(before)
    return y


@contextlib.contextmanager
def redirected_relus():
    """Let ReLUs that block the whole gradient of an image pass on what would raise their input, while this lasts.

    A target that is dead all over the picture can be climbed to in no other way. Source: tensorflow/lucid,
    misc/redirected_relu_grad.py.
    Whatever computes a ReLU by other means than relu() must leave those aside while `redirected` is true.
    """
    global redirected
    redirected = True
    try:
        yield
    finally:
        redirected = False


@mx.custom_function
def redirected_relu(x):
    return mx.maximum(x, 0)


@redirected_relu.vjp
def redirected_relu_vjp(x, cotangent, output):
    passed = mx.where(output > 0, cotangent, 0)
    blocked = (passed == 0).all(axis=tuple(range(1, x.ndim)), keepdims=True)
    return mx.where(blocked, mx.maximum(cotangent, 0), passed)
