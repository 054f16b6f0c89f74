"""The layers that the architectures share. Arrays are N x H x W x C; convolution weights O x H x W x I."""

import mlx.core as mx
import mlx.nn as nn

from .kernels.arrays import on_cpu, sum_of
from .kernels.bands import each, join
from .kernels.convolution import conv2d, conv2d_relu
from .kernels.pooling import max_pool
from .kernels.relu import relu


class Conv2d(nn.Conv2d):
    """Convolve N x H x W x C, in the form that is fastest where it runs (kernels/convolution.py)."""

    def __call__(self, x):
        return conv2d(x, *self.parameters_for(x), self.stride, self.padding, self.cached)

    def with_relu(self, x):
        """Return relu(self(x)) in one, where that is faster."""
        return conv2d_relu(x, *self.parameters_for(x), self.stride, self.padding, self.cached)

    def parameters_for(self, x):
        """Return (weight, bias) in x's precision."""
        return self.in_precision(x.dtype, self.weight, self.get("bias"))

    def in_precision(self, dtype, weight, bias):
        """Return (weight, bias) as `dtype`."""
        if dtype == weight.dtype:
            return weight, bias
        weight = self.cached("weight16", lambda array: array.astype(dtype), weight)
        return weight, None if bias is None else self.cached("bias16", lambda array: array.astype(dtype), bias)

    def cached(self, name, make, *sources):
        """Return make(*sources), computed anew only for arrays `sources` that are not those of a call before.

        What dreaming derives from the weights (folded, transposed) is thus derived once, and never outlives weights
        that were trained or loaded since. Two calls are remembered: with the weights as they are, and folded.
        """
        calls = self.get("_" + name, ())
        for known, made in calls:
            if len(known) == len(sources) and all(a is b for a, b in zip(known, sources, strict=True)):
                return made
        made = make(*sources)
        if not self.training:
            self["_" + name] = ((sources, made), *calls[:1])
        return made


class BasicConv2d(nn.Module):
    """Convolution without bias, batch norm with eps 1e-3, ReLU: torchvision's BasicConv2d."""

    def __init__(self, inputs, outputs, kernel_size, stride=1, padding=0):
        super().__init__()
        self.conv = Conv2d(inputs, outputs, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm(outputs, eps=1e-3)

    def __call__(self, x):
        return conv_bn_relu(self.conv, self.bn, x)

    @property
    def by_batch(self):
        """Whether this normalises by the statistics of a batch, and not by fixed ones."""
        return self.bn.training

    def after(self, y):
        """Return what this makes of its convolution's output."""
        return relu(self.bn(y))

    def folded(self, dtype):
        """Return (weight, bias), as `dtype`, of the convolution that this is with fixed statistics."""
        return folded(self.conv, self.bn, dtype)


def conv_bn(conv, bn, x):
    """Convolve, then normalise; with fixed statistics the two are one convolution."""
    if bn.training:
        return bn(conv(x))
    return conv2d(x, *folded(conv, bn, x.dtype), conv.stride, conv.padding, conv.cached)


def conv_bn_relu(conv, bn, x):
    """Return relu(conv_bn(...)) in one, where that is faster."""
    if bn.training:
        return relu(bn(conv(x)))
    return conv2d_relu(x, *folded(conv, bn, x.dtype), conv.stride, conv.padding, conv.cached)


def folded(conv, bn, dtype):
    """Return the (weight, bias), as `dtype`, of the convolution that `conv` and `bn` with fixed statistics are."""

    def fold(weight, scale, shift, mean, variance):
        scale = scale * mx.rsqrt(variance + bn.eps)
        return weight * scale[:, None, None, None], shift - mean * scale

    sources = (conv.weight, bn.weight, bn.bias, bn.running_mean, bn.running_var)
    return conv.in_precision(dtype, *conv.cached("folded", fold, *sources))


def relu_after(y, function, *arguments):
    """Return relu(y) of a convolution's output y; on a GPU function(*arguments) makes both in one, and y for nobody."""
    return relu(y) if on_cpu() else function(*arguments)


class ReLU(nn.Module):
    """The ReLU as a layer of a list."""

    def __call__(self, x):
        return relu(x)


class MaxPool2d(nn.Module):
    """Max pooling by torch's rules, ceil mode included."""

    def __init__(self, kernel_size, stride, padding=0, ceil_mode=False):
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode

    def __call__(self, x):
        return max_pool(x, self.kernel_size, self.stride, self.padding, self.ceil_mode)


class LRN(nn.Module):
    """Local response normalisation across channels, as Caffe's: x / (1 + alpha / 5 * sum of 5 squares) ** 0.75
    (Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012, 3.3).
    """

    def __init__(self, alpha=1e-4):
        super().__init__()
        self.alpha = alpha

    def __call__(self, x):
        return each(self.normalise, x)

    def normalise(self, x):
        dtype, x = x.dtype, x.astype(mx.float32)  # squares are too large for float16
        channels = x.shape[-1]
        squares = mx.pad(x * x, [(0, 0), (0, 0), (0, 0), (2, 2)])
        near = sum_of(squares[..., i : i + channels] for i in range(5))
        root = mx.rsqrt(1 + self.alpha / 5 * near)
        return (x * root * mx.sqrt(root)).astype(dtype)  # a power of -3/4 by way of roots, several times faster


def flatten_chw(x):
    """Flatten N x H x W x C to N x CHW, the order of torch's and Caffe's classifiers."""
    x = join(x)
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
