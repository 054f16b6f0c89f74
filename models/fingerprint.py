"""Which features a network computes: a digest of its parameters, the same whatever file they come in.

It covers the parameters up to the layer that concepts are taken at (NetworkSpec.concept_layers), rounded to float16:
not the classifiers, nor how exactly a file stores its numbers. Files that store them less exactly than that carry the
digest of what they were made from, as `feature_digest` in their metadata.
"""

import functools
import hashlib

import numpy as np
from mlx.utils import tree_flatten

from . import weights_file
from .registry import entry

COARSE = ("bfloat16", "int8")  # dtypes of files that do not hold float16's digits


def feature_digest(net):
    """Return the hexadecimal SHA-256 of the features of a loaded network."""
    if net.metadata.dtype in COARSE and net.metadata.extra.get("feature_digest"):
        return net.metadata.extra["feature_digest"]
    return digest_of_file(net.path, net.path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def digest_of_file(path, _modified):
    arrays, metadata = weights_file.read(path)
    return digest_of_arrays(arrays, metadata.model)


def digest_of_arrays(arrays, model):
    """Return the hexadecimal SHA-256 of {parameter path: array} of a network of the registry."""
    digest = hashlib.sha256()
    with np.errstate(over="ignore"):
        for path in feature_paths(model):
            array = np.asarray(arrays[path]).astype("<f2", order="C")
            digest.update(f"{path} {array.shape}\n".encode())
            digest.update(array)
    return digest.hexdigest()


@functools.cache
def feature_paths(model):
    """Return the paths, sorted, of the parameters that the features of a network depend on."""
    spec = entry(model)
    net = spec.build(0)
    layers = net.layers[: net.layers.index(net.resolve(spec.concept_layers[-1])) + 1]
    paths = (path for path, _ in tree_flatten(net.parameters()))
    return sorted(path for path in paths if any(path.startswith(f"{layer}.") for layer in layers))
