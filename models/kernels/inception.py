"""An Inception module's convolutions together.

The 1 x 1 ones of its input are one, and so are their gradients. A GPU makes the whole module in one function, of half
the kernels that its branches take one by one: what ends the branches is concatenated before bias and ReLU.
"""

from typing import NamedTuple

import mlx.core as mx

from . import convolution
from .arrays import at_least_zero, join_cells, laid_out
from .bands import Bands, differentiable, each
from .gpu import flip
from .pooling_gpu import max_pool_3x3, max_pool_3x3_gradient


class Kernel(NamedTuple):
    """A convolution of stride 1 that keeps the size of its map: weight O x h x w x I, bias, Conv2d.cached."""

    weight: mx.array
    bias: mx.array | None
    cached: object

    def input_gradient(self, dy, beyond=0):
        """Compute the gradient for its input, and for `beyond` cells around it."""
        flipped = self.cached("flipped", flip, self.weight)
        return mx.conv2d(dy, flipped, padding=[p + beyond for p in same(self.weight)])


def inception_gpu(x, heads, tails):
    """Compute the output of a module for N x H x W x C, an array or Bands.

    heads: the 1 x 1 Kernels of x, of which the first is a branch. tails: the Kernels behind the others, and last the
    1 x 1 one behind the pooling. Its gradients are those of x and of all weights and biases.
    """
    bias = heads[0].cached("output_bias", join, *(kernel.bias for kernel in (heads[0], *tails)))
    y = each(lambda x: module(heads, tails, bias)(x), x)
    if isinstance(y, Bands):  # what nobody asks for is never computed
        y.before_relu, y.bias = each(lambda x: module(heads, tails)(x), x), bias
    return y


def module(heads, tails, output_bias=None):
    """Return the function of N x H x W x C that inception_gpu() computes; without the bias of its output, what lies
    before this and its ReLU: gradients for that may come from where the ReLU lets them through, and from nowhere else.
    """
    head, parts = merged(heads)
    ends = pieces([heads[0], *tails])  # of the channels of the output

    @mx.custom_function
    def function(x, weight, bias, weights, output_bias=None):
        raw = mx.conv2d(x, weight)
        inputs = [mx.maximum(raw[..., part] + bias[part], 0) for part in parts[1:]]
        maxima, places = max_pool_3x3(x)
        outputs = [mx.conv2d(y, w, padding=same(w)) for y, w in zip((*inputs, maxima), weights, strict=True)]
        y = mx.concatenate([raw[..., parts[0]], *outputs[:-1], inner(outputs[-1], x)], axis=-1)
        y = y if output_bias is None else mx.maximum(y + output_bias, 0)
        return y, raw, *inputs, maxima, places

    @function.vjp
    def function_vjp(primals, cotangents, outputs):
        (x, weight, _, weights, *_), dy, (y, raw, *inputs, places) = primals, cotangents[0], outputs
        down = [dy[..., end] if output_bias is None else dy[..., end] * mx.sign(y[..., end]) for end in ends[1:]]
        up = [tail.input_gradient(d) for tail, d in zip(tails[:-1], down, strict=False)]
        d_raw = mx.concatenate([dy[..., ends[0]], *up], axis=-1) * (raw + head.bias > 0)
        beyond = (places.shape[1] - x.shape[1]) // 2
        dx = max_pool_3x3_gradient(tails[-1].input_gradient(down[-1], beyond), places, head.input_gradient(d_raw))
        inputs[-1] = inner(inputs[-1], x)
        gradients = (
            dx,
            weight_gradient(x, weight, d_raw),
            mx.where(mx.arange(d_raw.shape[-1]) < parts[0].stop, 0, d_raw.sum(axis=(0, 1, 2))),
            [weight_gradient(a, w, d) for a, w, d in zip(inputs, weights, down, strict=True)],
            (dy * mx.sign(y)).sum(axis=(0, 1, 2)),
        )
        return gradients[: len(primals)]  # what nobody asks for is never computed

    bias = () if output_bias is None else (output_bias,)
    return lambda x: function(x, head.weight, head.bias, [tail.weight for tail in tails], *bias)[0]


def heads_cpu(x, heads, relu=True):
    """Return the outputs of 1 x 1 Kernels of the same N x H x W x C, an array or Bands; with `relu`, all but the first
    after a ReLU.

    They are one product of matrices, and so are their gradients for x.
    """
    head, parts = merged(heads)
    matrix = head.cached("matrix", convolution.as_matrix, head.weight)
    ends = [at_least_zero if relu and i else laid_out for i in range(len(parts))]

    def forward(x, *_):  # the weights come as other objects, for which cached() would keep nothing
        y = convolution.product(x, matrix, head.bias)
        return [end(y[..., part]) for end, part in zip(ends, parts, strict=True)]

    def backward(primals, dy, outputs):
        x = primals[0]
        starts = [d * mx.sign(y) if relu else d for d, y in zip(dy[1:], outputs[1:], strict=True)]
        dy = join_cells([dy[0], *starts], -1)
        weights = convolution.weight_gradient(x, head.weight, dy, (1, 1))
        return (dy @ matrix.T, weights, dy.sum(axis=(0, 1, 2)))[: len(primals)]

    primals = (head.weight,) if head.bias is None else (head.weight, head.bias)
    return each(lambda x: differentiable(forward, backward)(x, *primals), x)


def merged(kernels):
    """Return (one Kernel of 1 x 1 convolutions of the same input, [slice of its channels] of each of them)."""
    cached = kernels[0].cached
    weight = cached("merged", join, *(kernel.weight for kernel in kernels))
    biases = [kernel.bias for kernel in kernels]
    bias = None if biases[0] is None else cached("merged_bias", join, *biases)
    return Kernel(weight, bias, lambda name, *of: cached("merged_" + name, *of)), pieces(kernels)


def pieces(kernels):
    """Return the slice of channels of each of Kernels whose outputs lie one behind the other."""
    stops = [0]
    for kernel in kernels:
        stops.append(stops[-1] + len(kernel.weight))
    return [slice(*ends) for ends in zip(stops, stops[1:], strict=False)]


def join(*arrays):
    return mx.concatenate(arrays)


def same(weight):
    """Return the padding that keeps the size of a map."""
    return [k // 2 for k in weight.shape[1:3]]


def inner(wide, x):
    """Leave out what N x H x W x C has around a map of the size of x."""
    height, width = x.shape[1:3]
    beyond = (wide.shape[1] - height) // 2
    return wide[:, beyond : beyond + height, beyond : beyond + width]


def weight_gradient(x, weight, dy):
    return mx.vjp(lambda w: mx.conv2d(x, w, padding=same(w)), [weight], [dy])[1][0]
