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
COLLECTIONS = ("params", "batch_stats", "state")  # of one network, in flax and haiku
PARTS = 200  # of a file that are tried


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
    that of their names ("Conv_2" before "Conv_10"). What follows a network's convolutions need not be there, and
    something else may lie beside the network. Raises UserError where there is no such network.
    """
    for part in parts_of(arrays):
        layers = {}
        for key, array in without_collections(part).items():
            module, _, field = key.rpartition(".")
            layers.setdefault(module, {})[TO_TORCH.get(field, field)] = array
        layers = {module: layer for module, layer in layers.items() if "weight" in layer}
        for order in (list(layers), sorted(layers, key=natural)):
            found = match_by_kind([layers[module] for module in order], model)
            if found:
                return found, [key for key in arrays if key not in part]
    shapes = {key: array.shape for key, array in arrays.items()}
    raise UserError(f"{no_match(len(group_by_module(arrays)), model)}: {describe(shapes)}")


def match_by_kind(layers, model):
    """Return {our path: array in torch's layout} if a network has as many layers of each kind, of these shapes."""
    theirs = sorted(layers, key=kind)  # which keeps the order of layers of one kind
    for name in [model] if model else REGISTRY:
        for classifier in (True, False):
            own = group_by_module(shapes_of(name, classifier=classifier))
            own = dict(sorted(own.items(), key=lambda item: kind(item[1])))
            if len(own) == len(theirs):
                found = match_layers(own, channels_first(theirs), REGISTRY[name].num_classes)
                if found:
                    return found
    return None


def no_match(count, model):
    names = [model] if model else list(REGISTRY)
    return f"its {count} layers, one after another, are not those of {model or 'any network here'} ({', '.join(names)})"


def parts_of(arrays):
    """Yield the arrays, then those below each of their containers, from the outermost in."""
    waiting = [("", arrays)]
    for _ in range(PARTS):
        if not waiting:
            return
        prefix, part = waiting.pop(0)
        yield part
        below = {}
        for key, array in part.items():
            head, dot, _ = key.removeprefix(prefix).partition(".")
            if dot:
                below.setdefault(f"{prefix}{head}.", {})[key] = array
        waiting += below.items()


def without_collections(arrays):
    """Join the parameters and the statistics that flax and haiku keep apart, in "params" and "batch_stats"."""
    return {
        ".".join(part for part in key.split(".") if part not in COLLECTIONS): array for key, array in arrays.items()
    }


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
