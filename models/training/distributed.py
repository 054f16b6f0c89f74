"""Batch norm and dropout of a batch that several processes share."""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from dataset.cli import UsageError


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
    """nn.BatchNorm over the batch of all processes together, in few passes over memory: on a CPU they are its cost."""

    world_size = 1

    def __call__(self, x):
        if not self.training:
            return super().__call__(x)
        count = x.size // x.shape[-1] * self.world_size
        if count < 2:
            raise UsageError("one value a channel is too little for batch norm: a larger --batch-size or --image-size")
        y, mean, variance = batch_norm(self.eps, self.world_size)(x, self.weight, self.bias)
        unbiased = variance * (count / (count - 1))
        self.running_mean = (1 - self.momentum) * self.running_mean + self.momentum * mx.stop_gradient(mean)
        self.running_var = (1 - self.momentum) * self.running_var + self.momentum * mx.stop_gradient(unbiased)
        return y


def batch_norm(eps, world_size):
    """Return a function (x, weight, bias) -> (y, mean, variance) of N x ... x C, differentiable in y
    (Ioffe and Szegedy, Batch Normalization, 2015, section 3)."""

    def moments(rows):
        """Return (mean, variance, rows without their mean), over all rows of all processes; the first two 1 x C."""
        mean = rows.mean(axis=0, keepdims=True)
        centred = rows - mean
        variance = (centred * centred).mean(axis=0, keepdims=True)
        if world_size > 1:  # one exchange: what costs is its latency
            everyone = mx.distributed.all_sum(mx.concatenate([mean, mean * mean, variance])) / world_size
            mean, squares, within = mx.split(everyone, 3)
            variance = within + mx.maximum(squares - mean * mean, 0)
            centred = rows - mean
        return mean, variance, centred

    @mx.custom_function
    def normalise(x, weight, bias):
        mean, variance, centred = moments(x.reshape(-1, x.shape[-1]))
        y = centred * (weight * mx.rsqrt(variance + eps)) + bias
        return y.reshape(x.shape), mean[0], variance[0]

    @normalise.vjp
    def gradients(primals, cotangents, outputs):
        (x, weight, _), (towards, _, _), (_, mean, variance) = primals, cotangents, outputs
        rows, dy = x.reshape(-1, x.shape[-1]), towards.reshape(-1, x.shape[-1])
        centred, inverse = rows - mean, mx.rsqrt(variance + eps)
        d_bias = dy.sum(axis=0, keepdims=True)
        along = (dy * centred).sum(axis=0, keepdims=True)
        if world_size > 1:  # other processes' losses depend on this one's share of the mean, too
            total = mx.distributed.all_sum(mx.concatenate([d_bias, along])) / world_size
        else:
            total = mx.concatenate([d_bias, along])
        total = total / len(rows)
        dx = (dy - total[:1]) * (weight * inverse) - centred * (weight * inverse**3 * total[1:])
        return dx.reshape(x.shape), (along * inverse)[0], d_bias[0]

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
