"""Batch norm and dropout of a batch that several processes share."""

import math

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from dataset.cli import UsageError

from ..kernels.arrays import sum_of
from ..kernels.bands import Bands, one


def share_batches(net, group):
    """Give the network batch norm and dropout that do on a process's share of a batch what they do on the whole of it.

    Call it after freeze(): frozen batch norms stay as they are.
    """
    rank, world_size = group.rank(), group.size()
    replaced = []
    for path, module in net.named_modules():
        if isinstance(module, nn.BatchNorm) and module.trainable_parameters():
            shared = BatchNorm(module.num_features, module.eps, module.momentum)
            shared.world_size = world_size
            shared.update(module.parameters())
            replaced.append((path, shared))
        elif isinstance(module, nn.Dropout) and world_size > 1:
            replaced.append((path, Dropout(1 - module._p_1, rank, world_size)))
    net.update_modules(tree_unflatten(replaced))


class BatchNorm(nn.BatchNorm):
    """nn.BatchNorm over all bands and the batch of all processes together, in few passes over memory: on a CPU they
    are its cost.
    """

    world_size = 1

    def __call__(self, x):
        if not self.training:
            return super().__call__(x)
        count = math.prod(x.shape[:-1]) * self.world_size
        if count < 2:
            raise UsageError("one value a channel is too little for batch norm: a larger --batch-size or --image-size")
        bands = x if isinstance(x, Bands) else one(x)
        normalise = batch_norm(self.eps, self.world_size, bands.streams)
        *parts, mean, variance = normalise(self.weight, self.bias, *bands.parts)
        unbiased = variance * (count / (count - 1))
        self.running_mean = (1 - self.momentum) * self.running_mean + self.momentum * mx.stop_gradient(mean)
        self.running_var = (1 - self.momentum) * self.running_var + self.momentum * mx.stop_gradient(unbiased)
        return Bands(parts, bands.streams, bands.axis) if isinstance(x, Bands) else parts[0]


def batch_norm(eps, world_size, streams):
    """Return a function (weight, bias, *bands of x) -> (*bands of y, mean, variance), x N x ... x C, each band on its
    stream, differentiable in y (Ioffe and Szegedy, Batch Normalization, 2015, section 3).
    """

    def on_each(function, *arrays):
        results = []
        for stream, *own in zip(streams, *arrays, strict=True):
            with mx.stream(stream):
                results.append(function(*own))
        return results

    def total(function, *arrays):
        """Return the sum over the bands of the sums over their rows, 1 x C."""
        return sum_of(on_each(lambda *own: function(*own).sum(axis=0, keepdims=True), *arrays))

    def moments(bands):
        """Return (mean, variance), both 1 x C, over all rows of all bands of all processes."""
        count = sum(map(len, bands))
        mean = total(lambda rows: rows, bands) / count
        variance = total(lambda rows: mx.square(rows - mean), bands) / count
        if world_size > 1:  # one exchange: what costs is its latency
            everyone = mx.distributed.all_sum(mx.concatenate([mean, mean * mean, variance])) / world_size
            mean, squares, within = mx.split(everyone, 3)
            variance = within + mx.maximum(squares - mean * mean, 0)
        return mean, variance

    def rows_of(bands):
        return on_each(lambda x: x.reshape(-1, x.shape[-1]), bands)

    @mx.custom_function
    def normalise(weight, bias, *bands):
        mean, variance = moments(rows_of(bands))
        scale = weight * mx.rsqrt(variance + eps)
        shift = bias - mean * scale
        return (*on_each(lambda x: x * scale + shift, bands), mean[0], variance[0])

    @normalise.vjp
    def gradients(primals, cotangents, outputs):
        (weight, _, *bands), (*towards, _, _), (*_, mean, variance) = primals, cotangents, outputs
        rows, dy, inverse = rows_of(bands), rows_of(towards), mx.rsqrt(variance + eps)
        d_bias = total(lambda dy: dy, dy)
        along = total(lambda dy, rows: dy * (rows - mean), dy, rows)
        shared = mx.concatenate([d_bias, along])
        if world_size > 1:  # other processes' losses depend on this one's share of the mean, too
            shared = mx.distributed.all_sum(shared) / world_size
        offset, slope = shared / sum(map(len, rows))
        scale, slope = weight * inverse, weight * inverse**3 * slope
        shift = mean * slope - offset * scale
        dx = on_each(lambda x, dy: dy * scale - x * slope + shift, bands, towards)
        return (along * inverse)[0], d_bias[0], *dx

    return normalise


class Dropout(nn.Dropout):
    """nn.Dropout that draws for the whole batch and takes the rows rank, rank + world_size, ..."""

    def __init__(self, p, rank, world_size):
        super().__init__(p)
        self.rank, self.world_size = rank, world_size

    def __call__(self, x):
        if self._p_1 == 1 or not self.training:
            return x
        kept = mx.random.bernoulli(self._p_1, (len(x) * self.world_size, *x.shape[1:]))[self.rank :: self.world_size]
        return kept * x * (1 / self._p_1)
