"""The concepts that train_dream.py stores with the weights: for each class, what its images show the trained network.

In the weights file they are the entry `__concepts`, JSON as uint8: a list with, for each class, its concept as a recipe
holds it, or null.
"""

import functools
import json

import numpy as np

from dataset.cli import UserError

from ..weights_file import read_extras
from .concepts import from_json, to_json

EXTRA = "concepts"


def pack_concepts(concepts, classes):
    """Return the extra entries for weights_file.write() that hold {class: Concept} of some of the classes."""
    stored = [to_json(concepts[name]) if name in concepts else None for name in classes]
    return {EXTRA: np.frombuffer(json.dumps(stored, ensure_ascii=False).encode(errors="backslashreplace"), np.uint8)}


def class_concepts(net):
    """Return {index of the class: Concept} of what is stored with a network's weights, {} where nothing is.

    Raises UserError where that does not fit the network.
    """
    found = read_concepts(net.path, net.path.stat().st_mtime_ns) if net.path else {}
    for index, concept in found.items():
        if net.layer_info.get(concept.layer, (0, None))[0] != len(concept.direction) or index >= net.num_classes:
            raise UserError(f"{net.path}: its concept of {concept.name} does not fit the network; train it again")
    return found


@functools.lru_cache(maxsize=8)
def read_concepts(path, _modified):
    stored = read_extras(path, EXTRA).get("")
    try:
        items = [] if stored is None else enumerate(json.loads(stored.tobytes().decode()))
        return {index: from_json(item) for index, item in items if item is not None}
    except (ValueError, TypeError, RecursionError, UserError):
        raise UserError(f"{path}: the concepts in it cannot be read; the file is damaged") from None
