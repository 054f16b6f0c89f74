"""Making a network ready to learn: a classifier for other classes, what is frozen, batch norm and dropout.

A parameter is meant by its path in the network (`inception4c.branch2.0.conv.weight`), a module by the path that its
parameters' paths go on from: `features.2` holds `features.2.weight`, and nothing of `features.24`.
"""

import math
import zlib

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

import models
from models.cli import UsageError, closest

# frozen up to here, inclusive, unless another is asked for: edges and textures, which every picture is made of
FREEZE_TO = {
    "googlenet": "inception3b",
    "googlenet_bvlc": "inception3b",
    "googlenet_places365": "inception3b",
    "inception_v3": "Mixed_5d",
    "vgg16": "pool3",
    "vgg19": "pool3",
    "resnet50": "layer2",
    "alexnet": "pool2",
}


def below(path, module):
    """Whether a path leads into a module, or is the module's own."""
    return path == module or path.startswith(f"{module}.")


def paths_of(net):
    """The paths of what can be learned: all parameters but the running statistics of batch norm."""
    paths = (path for path, _ in tree_flatten(net.parameters()))
    return [path for path in paths if path.rpartition(".")[2] not in ("running_mean", "running_var")]


# --- New parameters ---


def new_network(model, num_classes, aux=False, seed=0):
    """A network of the registry with random weights, in eval mode.

    Normal, of variance 2 / fan-in (He et al., Delving Deep into Rectifiers, 2015); the classifiers of standard
    deviation 0.01, so that at first every class is as likely as another. Biases are 0, batch norm is the identity.
    """
    net = models.entry(model).build(num_classes, aux=aux).eval()
    last = classifier_paths(model, aux)
    values = []
    for path, array in tree_flatten(net.parameters()):
        if array.ndim > 1:
            deviation = 0.01 if path in last else math.sqrt(2 / math.prod(array.shape[1:]))
            key = mx.random.key(zlib.crc32(f"{seed} {path}".encode()))  # of its own: whatever else is there
            array = deviation * mx.random.normal(array.shape, key=key)
        elif path.endswith("bias"):
            array = mx.zeros(array.shape)
        values.append((path, array))
    net.update(tree_unflatten(values))
    return net


def classifier_paths(model, aux=False):
    """The parameters whose shape is a matter of the number of classes."""
    shapes = [
        {path: array.shape for path, array in tree_flatten(models.entry(model).build(n, aux=aux).parameters())}
        for n in (2, 3)
    ]
    return {path for path, shape in shapes[0].items() if shapes[1][path] != shape}


def transfer(net, arrays, classes_too=False):
    """Give the network those of the arrays {path: array} that it has a place for, its classifiers left out unless
    `classes_too`. Returns the paths of the parameters that stay new."""
    own = {path: array.shape for path, array in tree_flatten(net.parameters())}
    last = set() if classes_too else classifier_paths(net.metadata["model"], net.metadata["aux"])
    taken = {p: a for p, a in arrays.items() if p in own and p not in last and tuple(a.shape) == own[p]}
    net.update(tree_unflatten([(path, mx.array(np.asarray(a, np.float32))) for path, a in taken.items()]))
    return [path for path in paths_of(net) if path not in taken]


# --- Freezing ---


def learned_paths(net, freeze_to=None, train=None):
    """The paths of the parameters that are to learn.

    freeze_to: a layer; all that comes before it is frozen and so is the layer, None freezes nothing.
    train: modules or layers, and nothing else learns. The auxiliary classifiers learn in either case.
    Raises UsageError for a wrong name, or one with nothing to learn in it.
    """
    paths = paths_of(net)
    if train:
        modules = {*net.auxiliary, *(module_of(net, name, paths) for name in train)}
        return [path for path in paths if any(below(path, module) for module in modules)]
    frozen = net.layers[: net.layers.index(net.resolve(freeze_to)) + 1] if freeze_to else []
    frozen = [layer for layer in frozen if layer not in net.auxiliary]
    return [path for path in paths if not any(below(path, layer) for layer in frozen)]


def module_of(net, name, paths):
    """The path of the module that `name` means: its own, or a name that the layer has elsewhere."""
    for module in (name, net.all_aliases.get(name)):
        if module and any(below(path, module) for path in paths):
            return module
    if name in net.layers or name in net.all_aliases:
        raise UsageError(f"{name} has nothing to learn: it is not a convolution, nor made of some")
    raise UsageError(f"there is no layer {name!r} in this network: {closest(name, [*net.layers, *net.all_aliases])}")


def freeze(net, learned):
    """Leave only the parameters `learned` trainable. Returns the modules that are frozen whole."""
    learned, paths = set(learned), paths_of(net)
    frozen = []
    for name, module in net.named_modules():
        own = [path for path in paths if below(path, name)] if name else paths
        if own and learned.isdisjoint(own):
            module.freeze()
            frozen.append(module)
    return frozen


def training_mode(net, frozen):
    """Dropout on, batch norm on the statistics of its batch; but what is frozen uses, and keeps, its running ones."""
    net.train()
    for module in frozen:
        module.eval()


def cut_of(net, learned):
    """The last layer that the learning leaves alone, with all before it, and from which the network can go on; None
    where there is none. An auxiliary classifier that learns has to come after it."""
    cut = None
    for layer in net.layers:
        if layer in net.auxiliary or any(below(path, layer) for path in learned):
            break
        cut = layer if layer in net.cuts else cut
    return cut


# --- One batch on several machines ---


def share_batches(net, group):
    """Make batch norm and dropout do on the ranks' shares of a batch what they would do on the whole of it.

    To be called after freeze(): frozen batch norms stay as they are.
    """
    rank, ranks = group.rank(), group.size()
    replaced = []
    for path, module in net.named_modules():
        if isinstance(module, nn.BatchNorm) and module.trainable_parameters():
            shared = BatchNorm(module.num_features, module.eps, module.momentum)
            shared.ranks = ranks
            shared.update(module.parameters())
            replaced.append((path, shared))
        elif isinstance(module, nn.Dropout) and ranks > 1:
            replaced.append((path, Dropout(1 - module._p_1, rank, ranks)))
    net.update_modules(tree_unflatten(replaced))


class BatchNorm(nn.BatchNorm):
    """nn.BatchNorm, whose batch is that of all ranks together; and written to take few passes over memory, which on a
    CPU are what it costs."""

    ranks = 1

    def __call__(self, x):
        if not self.training:
            return super().__call__(x)
        count = x.size // x.shape[-1] * self.ranks
        if count < 2:
            raise UsageError("one value a channel is too little for batch norm: a larger --batch-size or --image-size")
        y, mean, variance = batch_norm(self.eps, self.ranks)(x, self.weight, self.bias)
        unbiased = variance * (count / (count - 1))
        self.running_mean = (1 - self.momentum) * self.running_mean + self.momentum * mx.stop_gradient(mean)
        self.running_var = (1 - self.momentum) * self.running_var + self.momentum * mx.stop_gradient(unbiased)
        return y


def batch_norm(eps, ranks):
    """A function (x, weight, bias) -> (y, mean, variance) of N x ... x C, differentiable in y
    (Ioffe and Szegedy, Batch Normalization, 2015, section 3)."""

    def moments(rows):
        """(mean, variance, rows without their mean), over all rows of all ranks; the first two 1 x C."""
        mean = rows.mean(axis=0, keepdims=True)
        centred = rows - mean
        variance = (centred * centred).mean(axis=0, keepdims=True)
        if ranks > 1:  # one exchange: what costs is its latency
            everyone = mx.distributed.all_sum(mx.concatenate([mean, mean * mean, variance])) / ranks
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
        if ranks > 1:  # the other ranks' losses depend on this one's share of the mean, and the other way round
            total = mx.distributed.all_sum(mx.concatenate([d_bias, along])) / ranks
        else:
            total = mx.concatenate([d_bias, along])
        total = total / len(rows)
        dx = (dy - total[:1]) * (weight * inverse) - centred * (weight * inverse**3 * total[1:])
        return dx.reshape(x.shape), (along * inverse)[0], d_bias[0]

    return normalise


class Dropout(nn.Dropout):
    """nn.Dropout that draws for the whole batch, of which this rank has every ranks-th row."""

    def __init__(self, p, rank, ranks):
        super().__init__(p)
        self.rank, self.ranks = rank, ranks

    def __call__(self, x):
        if self._p_1 == 1 or not self.training:
            return x
        kept = mx.random.bernoulli(self._p_1, (len(x) * self.ranks, *x.shape[1:]))[self.rank :: self.ranks]
        return kept * x * (1 / self._p_1)
