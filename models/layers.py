"""What the architectures share. Arrays are N x H x W x C; convolution weights O x H x W x I."""

import contextlib

import mlx.core as mx
import mlx.nn as nn

redirected = False  # set by redirected_relus()


def relu(x):
    """Every ReLU of the networks."""
    return redirected_relu(x) if redirected else nn.relu(x)


@contextlib.contextmanager
def redirected_relus():
    """While it lasts, a ReLU that blocks the whole gradient of an image passes on what would raise its input.

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


class BasicConv2d(nn.Module):
    """torchvision's BasicConv2d: convolution without bias, batch norm with eps 1e-3, ReLU."""

    def __init__(self, inputs, outputs, kernel_size, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm(outputs, eps=1e-3)

    def __call__(self, x):
        return relu(conv_bn(self.conv, self.bn, x))


def conv_bn(conv, bn, x):
    """Convolution, then batch norm."""
    return bn(conv(x))


class ReLU(nn.Module):
    def __call__(self, x):
        return relu(x)


class MaxPool2d(nn.Module):
    """Max pooling with torch's rules, ceil mode included."""

    def __init__(self, kernel_size, stride, padding=0, ceil_mode=False):
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode

    def __call__(self, x):
        return max_pool(x, self.kernel_size, self.stride, self.padding, self.ceil_mode)


def max_pool(x, kernel_size, stride, padding=0, ceil_mode=False):
    """Max pooling as torch does it: in ceil mode the last window may hang over the right and lower border, if it
    starts inside the image or its left padding. Raises ValueError where no window fits.
    """
    k, s, p = kernel_size, stride, padding
    if ceil_mode or p:
        ends = [overhang(size, k, s, p) if ceil_mode else p for size in x.shape[1:3]]
        x = mx.pad(x, [(0, 0), (p, ends[0]), (p, ends[1]), (0, 0)], constant_values=-float("inf"))
    if min(x.shape[1:3]) < k:  # MLX would make an empty map of it
        raise ValueError(f"a window of {k} x {k} is larger than its input, {x.shape[1]} x {x.shape[2]}")
    return nn.MaxPool2d(k, s)(x)


def overhang(size, k, s, p):
    """How far ceil mode pads the end of a side, which is `size` long and has p in front (torch's formula)."""
    count = -(-(size + 2 * p - k) // s) + 1
    if (count - 1) * s >= size + p:
        count -= 1
    return max((count - 1) * s + k - size - p, 0)


def avg_pool_3x3(x):
    """3x3 averages at stride 1, over a border of zeros that count: torch's avg_pool2d(x, 3, stride=1, padding=1)."""
    x = mx.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    x = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    return (x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]) * (1 / 9)


def adaptive_avg_pool(x, size, kernel_size=1, stride=1):
    """Average pooling whose windows are laid out on a map of size x size, and scaled to the map at hand.

    A window [a, b) goes from floor(a H / size) to ceil(b H / size). Single cells make torch's AdaptiveAvgPool2d; on a
    map of that very size it is ordinary pooling with `kernel_size` and `stride`.
    """
    rows, columns = (windows(length, size, kernel_size, stride, x.dtype) for length in x.shape[1:3])
    x = mx.tensordot(rows, x, axes=[[1], [1]])  # rows x N x W x C
    x = mx.tensordot(columns, x, axes=[[1], [2]])  # columns x rows x N x C
    return x.transpose(2, 1, 0, 3)


def windows(length, size, kernel_size, stride, dtype):
    """The matrix that averages `length` cells over the windows of adaptive_avg_pool."""
    matrix = []
    for first in range(0, size - kernel_size + 1, stride):
        start, end = first * length // size, -(-(first + kernel_size) * length // size)
        matrix.append([1 / (end - start) if start <= i < end else 0.0 for i in range(length)])
    return mx.array(matrix, dtype)


class LRN(nn.Module):
    """Local response normalisation across channels, as Caffe's: x / (1 + alpha / 5 * sum of 5 squares) ** 0.75
    (Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012, 3.3).
    """

    def __init__(self, alpha=1e-4):
        super().__init__()
        self.alpha = alpha

    def __call__(self, x):
        channels = x.shape[-1]
        squares = mx.pad(x * x, [(0, 0), (0, 0), (0, 0), (2, 2)])
        total = sum(squares[..., i : i + channels] for i in range(5))
        root = mx.rsqrt(1 + self.alpha / 5 * total)
        return x * root * mx.sqrt(root)  # a power of -3/4 by way of roots, several times faster


def flatten_chw(x):
    """N x H x W x C to N x CHW, the order in which torch's and Caffe's classifiers flatten."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
