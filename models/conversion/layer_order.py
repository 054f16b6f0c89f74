"""Matches arrays whose names say nothing to a network's layers, by the order of the layers and their shapes."""

import math
import re

from dataset.cli import UserError

from ..registry import REGISTRY
from .identification import describe, shapes_of

# torch's names for what a layer holds: those of flax, haiku and Keras, and the places in a list
FIELDS = {
    "weight": ("kernel", "w", "scale", "gamma", "0"),
    "bias": ("b", "beta", "offset", "1"),
    "running_mean": ("mean", "moving_mean"),
    "running_var": ("var", "moving_variance"),
}
TO_TORCH = {theirs: ours for ours, names in FIELDS.items() for theirs in names}
COLLECTIONS = ("params", "batch_stats", "state")  # flax's and haiku's, of one network


def match_modules(arrays, model=None):
    """Give the arrays of modules without names ours, layer by layer in the order of a network that they fit.

    Arrays are in torch's layout. Raises UserError where there is no such network.
    """
    theirs = group_by_module(arrays)
    for name in [model] if model else REGISTRY:
        own = group_by_module(shapes_of(name))
        if len(own) != len(theirs):
            continue
        found = match_layers(own, theirs.values(), REGISTRY[name].num_classes)
        if found:
            return found
    raise UserError(no_match(len(theirs), model))


def match_channels_last(arrays, model=None):
    """Give arrays with kernels H x W x I x O, matrices I x O, ours: (arrays in torch's layout, names of the unused).

    Layers of a kind (convolutions, batch norms, fully connected) are taken by the order in the file, or else by
    that of their names ("Conv_2" before "Conv_10"). What follows a network's convolutions need not be there.
    """
    arrays, unused = one_network(arrays)
    layers = {}
    for key, array in arrays.items():
        module, _, field = key.rpartition(".")
        layers.setdefault(module, {})[TO_TORCH.get(field, field)] = array
    layers = {module: layer for module, layer in layers.items() if "weight" in layer or "running_mean" in layer}
    for order in (list(layers), sorted(layers, key=natural)):
        kinds = sorted((layers[module] for module in order), key=kind)  # a stable sort
        for name in [model] if model else REGISTRY:
            for classifier in (True, False):
                own = group_by_module(shapes_of(name, classifier=classifier))
                own = dict(sorted(own.items(), key=lambda item: kind(item[1])))
                if len(own) != len(kinds):
                    continue
                found = match_layers(own, channels_first(kinds), REGISTRY[name].num_classes)
                if found:
                    return found, unused
    found = describe({key: array.shape for key, array in arrays.items()}) if arrays else "there are no arrays in it"
    raise UserError(f"{no_match(len(layers), model)}: {found}")


def no_match(count, model):
    names = [model] if model else list(REGISTRY)
    return f"its {count} layers, one after another, are not those of {model or 'any network here'} ({', '.join(names)})"


def one_network(arrays):
    """Join the collections that flax keeps apart, and leave out what stands beside them (optimizers'): (arrays,
    names left out).
    """
    joined, unused = {}, []
    top = {key.partition(".")[0] for key in arrays}
    if not top.isdisjoint(COLLECTIONS):
        for key, array in arrays.items():
            collection, _, rest = key.partition(".")
            if collection in COLLECTIONS:
                joined[rest] = array
            else:
                unused.append(key)
        return joined, unused
    return arrays, unused


def kind(layer):
    """Tell convolutions (0), batch norms (1) and fully connected layers (2) by {field: array or shape}."""
    weight = layer.get("weight", ())
    shape = weight if isinstance(weight, tuple) else weight.shape
    return {4: 0, 2: 2}.get(len(shape), 1)


def natural(name):
    """A key to sort names by, numbers in them by their value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,9})", name)]


def channels_first(layers):
    """Yield layers in torch's layout. The matrix behind the last convolution's map counts that map's channels last."""
    channels = 0
    for layer in layers:
        weight = layer.get("weight")
        if weight is not None and weight.ndim == 4:
            channels = weight.shape[3]
            layer = layer | {"weight": weight.transpose(3, 2, 0, 1)}
        elif weight is not None and weight.ndim == 2:
            side = math.isqrt(len(weight) // channels) if channels else 0
            if side > 1 and side * side * channels == len(weight):
                weight = weight.reshape(side, side, channels, -1).transpose(2, 0, 1, 3).reshape(weight.shape)
            channels = 0
            layer = layer | {"weight": weight.T}
        yield layer


def group_by_module(items):
    """Turn {path: item} into {module: {"weight": item, "bias": ...}}, in order."""
    groups = {}
    for key, item in items.items():
        module, _, field = key.rpartition(".")
        groups.setdefault(module, {})[field] = item
    return groups


def match_layers(own, theirs, num_classes):
    """Return {our path: array} if layers, one after another, have our shapes, else None."""
    found = {}
    for (module, shapes), layer in zip(own.items(), theirs, strict=True):
        matched = match_shapes(shapes, layer, any_outputs=shapes["weight"][0] == num_classes)
        if matched is None:
            return None
        found |= {f"{module}.{key}": array for key, array in matched.items()}
    return found


def match_shapes(shapes, arrays, any_outputs):
    """Return a layer's arrays in torch's layout if they have our shapes (O x H x W x I), else None.

    any_outputs: it is a classifier, whose number of outputs may differ. A bias of nothing but zeros is dropped where
    we have none.
    """
    arrays = {key: array for key, array in arrays.items() if key in shapes or key != "bias" or array.any()}
    if set(arrays) != set(shapes):
        return None
    matched = {}
    for key, shape in shapes.items():
        array = arrays[key]
        wanted = (shape[0], shape[3], *shape[1:3]) if len(shape) == 4 else shape
        if any_outputs:
            wanted = (array.shape[0], *wanted[1:]) if array.ndim else wanted
        flat = len(wanted) == 4 and array.shape == (wanted[0], math.prod(wanted[1:]))  # SpatialConvolutionMM's
        if array.shape != wanted and not flat:
            return None
        matched[key] = array.reshape(wanted)
    return matched
