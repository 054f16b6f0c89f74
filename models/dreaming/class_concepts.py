"""The concepts that train_dream.py stores with the weights: for each class, what its images show the trained network.

In the weights file they are the entry `__concepts`, JSON as uint8: {class: concept, as a recipe holds it}.
"""

import functools
import json

import numpy as np

from dataset.cli import UserError

from ..weights_file import read_extras
from .concepts import from_json, to_json

EXTRA = "concepts"


def pack_concepts(concepts):
    """Return the extra entries for weights_file.write() that hold {class: Concept}."""
    text = json.dumps({name: to_json(concept) for name, concept in concepts.items()}, ensure_ascii=False)
    return {EXTRA: np.frombuffer(text.encode(), np.uint8)}


def class_concepts(net):
    """Return {class: Concept} of what is stored with a network's weights, {} where nothing is. Raises UserError."""
    if net.path is None:
        return {}
    found = read_concepts(net.path, net.path.stat().st_mtime_ns)
    for name, concept in found.items():
        if net.layer_info.get(concept.layer, (0, None))[0] != len(concept.direction) or name not in (net.classes or []):
            raise UserError(f"{net.path}: its concept of {name} does not fit the network; train it again")
    return found


@functools.lru_cache(maxsize=8)
def read_concepts(path, _modified):
    stored = read_extras(path, EXTRA).get("")
    try:
        return {} if stored is None else {k: from_json(v) for k, v in json.loads(stored.tobytes().decode()).items()}
    except (ValueError, AttributeError, RecursionError, UserError):
        raise UserError(f"{path}: the concepts in it cannot be read; the file is damaged") from None
