"""Making a network ready to learn: a classifier for other classes, and what stays frozen.

A parameter is meant by its path in the network (`inception4c.branch2.0.conv.weight`), a module by the path that its
parameters' paths go on from: `features.2` holds `features.2.weight`, and nothing of `features.24`.
"""

import math
import zlib

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from dataset.cli import UsageError, suggest

from ..registry import entry


def below(path, module):
    """Whether a path leads into a module, or is the module's own."""
    return path == module or path.startswith(f"{module}.")


def paths_of(net):
    """The paths of what can be learned: all parameters but the running statistics of batch norm."""
    paths = (path for path, _ in tree_flatten(net.parameters()))
    return [path for path in paths if path.rpartition(".")[2] not in ("running_mean", "running_var")]


def new_network(model, num_classes, aux=False, seed=0):
    """A network of the registry with random weights, in eval mode.

    Normal, of variance 2 / fan-in (He et al., Delving Deep into Rectifiers, 2015); the classifiers of standard
    deviation 0.01, so that at first every class is as likely as another. Biases are 0, batch norm is the identity.
    """
    net = entry(model).build(num_classes, aux=aux).eval()
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
        {path: array.shape for path, array in tree_flatten(entry(model).build(n, aux=aux).parameters())} for n in (2, 3)
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
    raise UsageError(f"there is no layer {name!r} in this network: {suggest(name, [*net.layers, *net.all_aliases])}")


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


def split_layer(net, learned):
    """The last layer that the learning leaves alone, with all before it, and from which the network can go on; None
    where there is none. An auxiliary classifier that learns has to come after it."""
    cut = None
    for layer in net.layers:
        if layer in net.auxiliary or any(below(path, layer) for path in learned):
            break
        cut = layer if layer in net.split_points else cut
    return cut
