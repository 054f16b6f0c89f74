"""Tells which network of the registry arrays belong to, by their names and shapes."""

import functools
from dataclasses import dataclass

from mlx.utils import tree_flatten

from dataset.cli import UserError

from ..registry import REGISTRY


@dataclass(frozen=True)
class Match:
    """A network of the registry that arrays fit: its name, what to build it with, and which arrays to give it."""

    model: str
    num_classes: int
    aux: bool
    keys: tuple


@functools.cache
def shapes_of(model, aux=False):
    """Return {parameter path: shape} of a network of the registry, in the layers' order, with its usual classes."""
    entry = REGISTRY[model]
    net = entry.build(entry.num_classes, aux=aux)  # MLX is lazy: no parameter is computed
    return {key: tuple(array.shape) for key, array in tree_flatten(net.parameters())}


def identify(shapes, model=None):
    """Find the network of the registry that {parameter path: shape in MLX's layout} fits, as a Match.

    model: consider this one only. The number of classes comes from the classifier, and is 0 where there is none; the
    auxiliary classifiers then go as well. Raises UserError that names the nearest network and what does not fit it.
    """
    matches, misfits = [], {}
    for name in [model] if model else REGISTRY:
        entry = REGISTRY[name]
        plain = shapes_of(name)
        whole_net = shapes_of(name, aux=True) if entry.aux else plain
        # every shape that begins with the number of classes belongs to a classifier: no other layer is that wide
        heads = {key for key, shape in whole_net.items() if shape[0] == entry.num_classes}
        classifier = [key for key in plain if key in heads]
        auxiliary = [key for key in whole_net if key not in plain]

        num_classes = shapes[classifier[0]][0] if shapes.get(classifier[0]) else 0
        aux = entry.aux and num_classes > 0 and all(key in shapes for key in auxiliary)
        keys = [key for key in (whole_net if aux else plain) if num_classes or key not in classifier]
        wanted = {key: (num_classes, *whole_net[key][1:]) if key in heads else whole_net[key] for key in keys}
        wrong = [f"{key} is missing" for key in keys if key not in shapes]
        wrong += [f"{key} is misshapen" for key in keys if key in shapes and tuple(shapes[key]) != wanted[key]]
        wrong += [f"{key} is unexpected" for key in shapes if key not in whole_net]
        if not wrong:
            matches.append(Match(name, num_classes, aux, tuple(keys)))
        misfits[name] = wrong
    if matches:
        usual = [match for match in matches if match.num_classes == REGISTRY[match.model].num_classes]
        return (usual or matches)[0]
    nearest = min(misfits, key=lambda name: len(misfits[name]))
    wrong = misfits[nearest]
    what = f"{'; '.join(wrong[:3])}{f'; and {len(wrong) - 3} more' if len(wrong) > 3 else ''}"
    if model:
        raise UserError(f"these are no weights of {model}: {what}")
    known = sum(key in shapes_of(nearest, aux=REGISTRY[nearest].aux) for key in shapes)
    if known < len(shapes) / 4:
        raise UserError(f"these are no weights of any network here ({', '.join(REGISTRY)})")
    raise UserError(f"these are no weights of any network here; the nearest is {nearest}, but {what}")
