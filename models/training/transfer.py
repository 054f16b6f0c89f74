"""The network that a run starts from: the base's weights, and a classifier for other classes."""

import math
import zlib

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from dataset.cli import UsageError, UserError
from dataset.files import sha256

from .. import weights_file
from ..registry import entry
from .freezing import paths_of


def starting_network(path, classes, base=None, aux=None, seed=0):
    """Return (network, paths of its new parameters): a network with a classifier for `classes`, in eval mode.

    path: the weights file it starts from; None for random weights, drawn by `seed`, of the network `base`.
    aux: "train" or "strip" auxiliary classifiers; None keeps those of the file.
    Raises UserError where the weights are not those of `base`, UsageError for auxiliary classifiers that are not there.
    """
    if path is None:
        model, arrays, has_aux = base or "googlenet", {}, True
        metadata = weights_file.Metadata(model, dtype="float16")
    else:
        arrays, metadata = weights_file.read(path)
        model, has_aux = metadata.model, metadata.aux
        if base not in (None, model):
            raise UserError(f"{path}: these are weights of {model}, not of {base}")
        metadata = metadata.replace(source=path.name, source_sha256=sha256(path))
    spec = entry(model)
    if aux == "train" and not spec.aux:
        raise UsageError(f"--aux train: {model} has no auxiliary classifiers")
    aux = spec.aux and (aux == "train" or (has_aux and aux is None))
    net = new_network(model, len(classes), aux, seed)
    known = metadata.classes == classes  # then the classifier is worth keeping
    # the base's own layer may be a frozen one, of which the new network dreams just as the old
    net.metadata = metadata.replace(num_classes=len(classes), classes=classes, aux=aux, layer=spec.default_layer)
    return net, transfer(net, arrays, known)


def new_network(model, num_classes, aux=False, seed=0):
    """Return a network of the registry with random weights, in eval mode.

    Normal, of variance 2 / fan-in (He et al., Delving Deep into Rectifiers, 2015); the classifiers of standard
    deviation 0.01, so that at first every class is as likely as another. Biases are 0, batch norm is the identity.
    """
    net = weights_file.Metadata(model, num_classes, aux=aux).build().eval()
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
    """Return the paths of the parameters whose shape depends on the number of classes."""
    shapes = [
        {path: array.shape for path, array in tree_flatten(entry(model).build(n, aux=aux).parameters())} for n in (2, 3)
    ]
    return {path for path, shape in shapes[0].items() if shapes[1][path] != shape}


def transfer(net, arrays, classes_too=False):
    """Give the network those of the arrays {path: array} that it has a place for, its classifiers left out unless
    `classes_too`. Returns the paths of the parameters that stay new."""
    own = {path: array.shape for path, array in tree_flatten(net.parameters())}
    last = set() if classes_too else classifier_paths(net.metadata.model, net.metadata.aux)
    taken = {p: a for p, a in arrays.items() if p in own and p not in last and tuple(a.shape) == own[p]}
    net.update(tree_unflatten([(path, mx.array(np.asarray(a, np.float32))) for path, a in taken.items()]))
    return [path for path in paths_of(net) if path not in taken]
