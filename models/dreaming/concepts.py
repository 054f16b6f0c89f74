"""Concepts: what the images of a folder show, as a direction in a network's features that one can dream of.

With m the mean of a layer's features over the images, and mu and S their mean and covariance over ordinary photographs
(background.py), the direction is w = (S + ridge)^-1 (m - mu), of length 1: that of linear discriminant analysis. At a
position with activation a, z = w . (a - mu) says how much it looks like the images; objectives.py climbs it. Such a
direction is a concept activation vector (Kim et al., TCAV, 2018). It takes no training.

A concept is saved as an .npz of a few kilobytes: `direction`, and `__concept__` with the other fields as JSON. The
recipe of a dream holds its concepts in the same words.
"""

import base64
import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from dataset.cli import UsageError, UserError, log, print_result
from dataset.files import atomic_write
from dataset.npz import archive, npy_entries

from ..fingerprint import feature_digest
from ..registry import entry
from .background import background_layers, find_backgrounds
from .features import image_features, list_images

ENTRY = "__concept__"
TYPES = {"name": str, "layer": str, "offset": float, "images": int, "weights": str, "origin": str}


@dataclass(frozen=True, eq=False)
class Concept:
    """A direction in the features of a layer, and where on it ordinary photographs lie."""

    name: str
    layer: str
    direction: np.ndarray  # C numbers, float16, of length 1
    offset: float  # w . mu
    images: int  # how many it was made of
    weights: str  # feature_digest of the network
    origin: str
    # no part of what is saved:
    weight: float = 1.0  # in the objective
    path: str = ""  # what the command line called it


# --- From images ---


def make_concepts(net, path, layers=None, photographs=None, quiet=False):
    """Return the concepts of what `path`, a folder of images or one image, shows: a Concept for each layer.

    layers: names (None: the one that the registry names). photographs: see background.find_backgrounds().
    Raises UserError where there is no image, or no background for a layer.
    """
    paths = list_images(path)
    usual = [default_layer(net)]
    layers = concept_layers(net, layers) if layers else usual
    backgrounds = find_backgrounds(net, layers, photographs, quiet)
    missing = [layer for layer in layers if layer not in backgrounds]
    if missing == usual and net.num_classes:
        log("note: there is no background for these weights; the classifier says what the images show, which is "
            "rougher: see --background", quiet)  # fmt: skip
        return [concept_of_classifier(net, path, paths, quiet)]
    if missing:
        raise UserError(no_background(net, missing[0]))
    features = image_features(net, paths, layers, quiet)
    return [concept_of(net, path, layer, features[layer], backgrounds[layer]) for layer in layers]


def default_layer(net):
    """Return the layer at which concepts are taken unless another is named."""
    return net.resolve(entry(net.metadata.model).concept_layers[-1])


def concept_layers(net, names):
    """Return the layers that `--layers` names beside a concept; UsageError where one cannot hold a direction."""
    layers = []
    for name in names:
        if ":" in name or "=" in name:
            raise UsageError(f"--layers {name}: beside a concept, layers are named without channels and weights")
        layer = net.resolve(name)
        if not net.layer_info[layer][1]:
            raise UsageError(f"--layers {name}: a concept is taken at a layer with positions: {default_layer(net)}")
        layers += [layer] if layer not in layers else []
    return layers


def no_background(net, layer):
    """Return the line that says what to do about a layer without background."""
    there = background_layers(net)
    instead = f"; or take --layers {' or '.join(there)}" if there else ""
    return (f"{net.path}: no background for {layer} is known: make one of some hundred photographs of all kinds with "
            f"--background FOLDER{instead}")  # fmt: skip


def concept_of(net, path, layer, features, background, weights=None):
    """Return the Concept of features N x C against a background: linear discriminant analysis.

    weights: the network's feature_digest, where it is not yet in a file.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    direction = background.whiten(mean - background.mean)
    return new_concept(net, path, layer, direction, background.mean, len(features), weights)


def concept_of_classifier(net, path, paths, quiet=False):
    """Return the Concept that needs no background: w = W^T z, what the classes that the images resemble look for.

    z: the images' mean logits less their mean over the classes. Where the classifier W is not a matrix on the mean
    features, z is itself the direction, in the logits.
    """
    logits = net.resolve("logits")
    features = image_features(net, paths, [logits], quiet)[logits]
    z = features.mean(axis=0, dtype=np.float64)
    z -= z.mean()
    if "fc" not in net:
        return new_concept(net, path, logits, z, 0 * z, len(features))
    direction = z @ np.array(net.fc.weight, np.float64)
    return new_concept(net, path, default_layer(net), direction, 0 * direction, len(features))


def new_concept(net, path, layer, direction, mean, images, weights=None):
    """Return the Concept of a direction of any length, rounded as it is saved, so that it dreams the same again."""
    length = np.linalg.norm(direction)
    if not 0 < length < math.inf:
        raise UserError(f"{path}: what it shows differs in nothing from the background")
    direction = (direction / length).astype(np.float16)
    origin = f"{images} image{'s' * (images > 1)} of {path}"
    offset = float(direction.astype(np.float64) @ mean)
    return Concept(Path(path).absolute().stem, layer, direction, offset, images, weights or feature_digest(net), origin)


# --- From the command line ---


def parse_concepts(net, given, layers=None, photographs=None, quiet=False, remembered=None):
    """Return the Concepts that `given` names: each itself one, or a text PATH[=WEIGHT], PATH being a folder of images,
    an image or a saved concept.

    layers: where directions are taken (None: the usual one). remembered: {path: [Concept, ...]} of a recipe, which
    stand for those paths. Raises UserError; UsageError for a wrong text or layer.
    """
    found, remembered = [], remembered or {}
    for item in [given] if isinstance(given, (str, os.PathLike, Concept)) else given:
        if isinstance(item, Concept):
            found.append(check_fits(net, item, item.name, layers))
            continue
        path, weight = split_weight(str(item))
        if usable(net, remembered.get(path), layers):
            concepts = remembered[path]
        elif path.lower().endswith(".npz") and not os.path.isdir(path):
            concepts = [check_fits(net, read_concept(path), path, layers)]
        else:
            concepts = make_concepts(net, path, layers, photographs, quiet)
        found += [replace(concept, weight=weight, path=path) for concept in concepts]
    return found


def split_weight(text):
    """Return (path, weight) of PATH[=WEIGHT]; a PATH that exists is taken whole, whatever "=" it holds."""
    path, equals, weight = text.rpartition("=")
    if os.path.exists(text) or not equals:
        return text, 1.0
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not path or not math.isfinite(number):
        raise UsageError(f"concept {text!r} is not PATH[=WEIGHT], such as dataset/slugs=0.5, with a PATH that exists")
    return path, number


def usable(net, concepts, layers):
    """Whether concepts that a recipe remembers are those that would be made now."""
    there = [concept.layer for concept in concepts or []]
    wanted = concept_layers(net, layers) if layers else there
    return bool(there) and there == wanted and all(concept.weights == feature_digest(net) for concept in concepts)


def check_fits(net, concept, path, layers=None):
    """Return a concept if it is of the network's features, and of one of `layers` if any are named; else UserError."""
    channels = net.layer_info.get(concept.layer, (0, None))[0]
    if concept.weights != feature_digest(net) or len(concept.direction) != channels:
        raise UserError(f"{path}: this concept was made with other weights than {net.path}; make it again from images")
    if layers and concept.layer not in concept_layers(net, layers):
        raise UsageError(f"{path}: this concept was taken at {concept.layer}, not at {' or '.join(layers)}")
    return concept


# --- As a file, and as JSON ---


def is_concept(path):
    """Whether a file is a saved concept rather than a weights file; False where it can be neither."""
    try:
        with archive(path) as (names, _):
            return f"{ENTRY}.npy" in names
    except UserError:
        return False


def read_concept(path):
    """Return the Concept in a file; UserError, in one line, for whatever is none."""
    if not os.path.exists(path):
        raise UserError(f"{path}: no such file or folder")
    arrays = dict(npy_entries(path))
    if ENTRY not in arrays or "direction" not in arrays:
        raise UserError(f"{path}: this is no concept; --save-concept writes them")
    try:
        fields = json.loads(arrays[ENTRY].tobytes().decode())
        return checked_concept(fields, arrays["direction"])
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"{path}: this concept cannot be read; the file is damaged") from None


def checked_concept(fields, direction):
    """Return the Concept of JSON fields and its direction; ValueError or TypeError where they are none."""
    concept = Concept(direction=direction, **fields)
    for name, kind in TYPES.items():
        if type(getattr(concept, name)) is not kind:
            raise TypeError(name)
    if direction.ndim != 1 or not np.isfinite(direction).all() or not math.isfinite(concept.offset):
        raise ValueError("direction")
    return replace(concept, direction=direction.astype(np.float16), weight=1.0, path="")


def saved_fields(concept):
    """Return what JSON holds of a concept: all but the direction, and the weight, which is the objective's."""
    return {key: value for key, value in asdict(concept).items() if key in TYPES}


def direction_digest(concept):
    """Return a short text that tells whether a concept is the same as another."""
    return hashlib.sha256(concept.direction.tobytes() + repr((concept.layer, concept.offset)).encode()).hexdigest()[:16]


def save_concept(path, concepts):
    """Write the one concept among `concepts`, and print where; UsageError where there are several."""
    if len(concepts) > 1:
        raise UsageError(f"--save-concept saves one concept at one layer; these are {len(concepts)}")
    write_concept(path, concepts[0])
    print_result(path)


def write_concept(path, concept):
    """Write a concept to an .npz of a few kilobytes, whole or not at all."""
    text = json.dumps(saved_fields(concept), ensure_ascii=False).encode(errors="backslashreplace")
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, direction=concept.direction, **{ENTRY: np.frombuffer(text, np.uint8)})


def to_json(concept):
    """Return a concept as a recipe holds it."""
    direction = base64.b64encode(concept.direction.astype("<f2").tobytes()).decode()
    return saved_fields(concept) | {"direction": direction}


def from_json(data):
    """Return the Concept of to_json(); UserError for anything else."""
    try:
        data = {name: value for name, value in data.items() if name != "path"}
        direction = np.frombuffer(base64.b64decode(data.pop("direction"), validate=True), "<f2")
        return checked_concept(data, direction)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError("the recipe holds a concept that cannot be read") from None
