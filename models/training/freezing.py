"""What of a network learns, and what stays frozen.

A parameter is meant by its path in the network (`inception4c.branch2.0.conv.weight`), a module by the path that its
parameters' paths go on from: `features.2` holds `features.2.weight`, and nothing of `features.24`.
"""

import mlx.nn as nn
from mlx.utils import tree_flatten

from dataset.cli import UsageError, suggest


def is_below(path, module):
    """Tell whether a path leads into a module, or is the module's own."""
    return path == module or path.startswith(f"{module}.")


def paths_of(net):
    """Return the paths of what can be learned: all parameters but the running statistics of batch norm."""
    paths = (path for path, _ in tree_flatten(net.parameters()))
    return [path for path in paths if path.rpartition(".")[2] not in ("running_mean", "running_var")]


def learned_paths(net, freeze_to=None, train=None):
    """Return the paths of the parameters that are to learn.

    freeze_to: a layer; all that comes before it is frozen and so is the layer, None freezes nothing.
    train: modules or layers, and nothing else learns. The auxiliary classifiers learn in either case.
    Raises UsageError for a wrong name, or one with nothing to learn in it.
    """
    paths = paths_of(net)
    if train:
        modules = {*net.auxiliary, *(module_of(net, name, paths) for name in train)}
        return [path for path in paths if any(is_below(path, module) for module in modules)]
    frozen = net.layers[: net.layers.index(net.resolve(freeze_to)) + 1] if freeze_to else []
    frozen = [layer for layer in frozen if layer not in net.auxiliary]
    return [path for path in paths if not any(is_below(path, layer) for layer in frozen)]


def module_of(net, name, paths):
    """Return the path of the module that `name` means: its own, or an alias of the layer."""
    for module in (name, net.all_aliases.get(name)):
        if module and any(is_below(path, module) for path in paths):
            return module
    if name in net.layers or name in net.all_aliases:
        raise UsageError(f"{name} has nothing to learn: it is not a convolution, nor made of some")
    raise UsageError(f"there is no layer {name!r} in this network: {suggest(name, [*net.layers, *net.all_aliases])}")


def freeze(net, learned):
    """Leave only the parameters `learned` trainable. Returns the modules that are frozen whole."""
    learned, paths = set(learned), paths_of(net)
    frozen = []
    for name, module in net.named_modules():
        own = [path for path in paths if is_below(path, name)] if name else paths
        if own and learned.isdisjoint(own):
            module.freeze()
            frozen.append(module)
    return frozen


def training_mode(net, frozen, batch_norm="batch"):
    """Switch on dropout and, with batch_norm="batch", batch norm by the statistics of each batch.

    Frozen modules use, and keep, their running statistics; with batch_norm="running" all do.
    """
    net.train()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm)] if batch_norm == "running" else []
    for module in [*frozen, *norms]:
        module.eval()


def split_layer(net, learned):
    """Return the last of the split points before which nothing learns, and no auxiliary classifier branches off; None
    where there is none."""
    split = None
    for layer in net.layers:
        if layer in net.auxiliary or any(is_below(path, layer) for path in learned):
            break
        split = layer if layer in net.split_points else split
    return split
