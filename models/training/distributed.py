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
        """Return the sum over the cells of all bands, C."""
        return sum_of(on_each(lambda *own: function(*own).sum(axis=tuple(range(own[0].ndim - 1))), *arrays))

    def moments(bands):
        """Return (mean, variance), both C, over all cells of all bands of all processes."""
        cells = cells_of(bands)
        mean = total(lambda x: x, bands) / cells
        variance = total(lambda x: mx.square(x - mean), bands) / cells
        if world_size > 1:  # one exchange: what costs is its latency
            everyone = mx.distributed.all_sum(mx.stack([mean, mean * mean, variance])) / world_size
            mean, squares, within = everyone
            variance = within + mx.maximum(squares - mean * mean, 0)
        return mean, variance

    def cells_of(bands):
        return sum(x.size for x in bands) // bands[0].shape[-1]

    @mx.custom_function
    def normalise(weight, bias, *bands):
        mean, variance = moments(bands)
        scale = weight * mx.rsqrt(variance + eps)
        shift = bias - mean * scale
        return (*on_each(lambda x: x * scale + shift, bands), mean, variance)

    @normalise.vjp
    def gradients(primals, cotangents, outputs):
        (weight, _, *bands), (*dy, _, _), (*_, mean, variance) = primals, cotangents, outputs
        inverse = mx.rsqrt(variance + eps)
        d_bias = shared_bias = total(lambda dy: dy, dy)
        along = shared_along = total(lambda dy, x: dy * (x - mean), dy, bands)
        if world_size > 1:  # other processes' losses depend on this one's share of the mean, too
            shared_bias, shared_along = mx.distributed.all_sum(mx.stack([d_bias, along])) / world_size
        cells, scale = cells_of(bands), weight * inverse
        slope = scale * inverse * inverse * (shared_along / cells)
        shift = mean * slope - scale * (shared_bias / cells)
        dx = on_each(lambda x, dy: dy * scale - x * slope + shift, bands, dy)
        return along * inverse, d_bias, *dx

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
