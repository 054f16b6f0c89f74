"""What the architectures share. Arrays are N x H x W x C; convolution weights O x H x W x I."""

import mlx.core as mx
import mlx.nn as nn


class BasicConv2d(nn.Module):
    """torchvision's BasicConv2d: convolution without bias, batch norm with eps 1e-3, ReLU."""

    def __init__(self, inputs, outputs, kernel_size, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm(outputs, eps=1e-3)

    def __call__(self, x):
        return nn.relu(conv_bn(self.conv, self.bn, x))


def conv_bn(conv, bn, x):
    """Convolution, then batch norm."""
    return bn(conv(x))


class ReLU(nn.Module):
    def __call__(self, x):
        return nn.relu(x)


class MaxPool2d(nn.Module):
    """Max pooling with torch's rules, ceil mode included."""

    def __init__(self, kernel_size, stride, padding=0, ceil_mode=False):
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode

    def __call__(self, x):
        return max_pool(x, self.kernel_size, self.stride, self.padding, self.ceil_mode)


def max_pool(x, kernel_size, stride, padding=0, ceil_mode=False):
    """Max pooling as torch does it: in ceil mode the last window may hang over the right and lower border, if it
    starts inside the image or its left padding.
    """
    k, s, p = kernel_size, stride, padding
    if ceil_mode or p:
        ends = [overhang(size, k, s, p) if ceil_mode else p for size in x.shape[1:3]]
        x = mx.pad(x, [(0, 0), (p, ends[0]), (p, ends[1]), (0, 0)], constant_values=-float("inf"))
    return nn.MaxPool2d(k, s)(x)


def overhang(size, k, s, p):
    """How far ceil mode pads the end of a side, which is `size` long and has p in front (torch's formula)."""
    count = -(-(size + 2 * p - k) // s) + 1
    if (count - 1) * s >= size + p:
        count -= 1
    return max((count - 1) * s + k - size - p, 0)


def adaptive_avg_pool(x, size):
    """Averages over size x size bins, from floor(i H / size) to ceil((i + 1) H / size): torch's AdaptiveAvgPool2d."""
    rows, columns = (bins(length, size, x.dtype) for length in x.shape[1:3])
    x = mx.tensordot(rows, x, axes=[[1], [1]])  # size x N x W x C
    x = mx.tensordot(columns, x, axes=[[1], [2]])  # size x size x N x C, columns first
    return x.transpose(2, 1, 0, 3)


def bins(length, size, dtype):
    matrix = [[0.0] * length for _ in range(size)]
    for i in range(size):
        start, end = i * length // size, -(-(i + 1) * length // size)
        matrix[i][start:end] = [1 / (end - start)] * (end - start)
    return mx.array(matrix, dtype)


def flatten_chw(x):
    """N x H x W x C to N x CHW, the order in which torch's and Caffe's classifiers flatten."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
