"""Backgrounds: how ordinary photographs look to a network, against which what a folder shows stands out.

Of every image the mean over positions of a layer's output is taken, C numbers; a background holds the mean of those
numbers over many photographs, and their covariance as 64 principal axes and a diagonal rest. As a file, an .npz:

    LAYER.mean, LAYER.factor, LAYER.rest    C, C x 64, C numbers: covariance = factor factor^T + diag(rest)
    pictures                                how many photographs
    digest                                  of the features (models/fingerprint.py): whose background it is
    source                                  of a user's: which photographs
"""

from dataclasses import dataclass

import numpy as np

from dataset.cli import UserError, error_text, log
from dataset.files import atomic_write
from dataset.npz import npy_entries

from .. import WEIGHTS
from ..fingerprint import feature_digest
from ..registry import entry
from ..weights_file import read_extras
from .features import image_features, images_digest, list_images

RIDGE = 3.0  # times the mean variance: with 0.3 too much is made of directions in which photographs hardly vary
AXES = 64
FEW = 100  # photographs, with fewer of which a background is rough
PIECE = 256  # rows at a time
PARTS = ("mean", "factor", "rest")


@dataclass(frozen=True, eq=False)
class Background:
    """Mean (C) and covariance, factor factor^T + diag(rest), of a layer's features over ordinary photographs."""

    mean: np.ndarray  # C
    factor: np.ndarray  # C x 64
    rest: np.ndarray  # C

    def whiten(self, difference):
        """Return (covariance + ridge)^-1 difference: what C features differ by, told by how photographs vary.

        By the Woodbury identity: (D + F F^T)^-1 d = D^-1 d - D^-1 F (I + F^T D^-1 F)^-1 F^T D^-1 d, D diagonal.
        """
        factor, rest = self.factor.astype(np.float64), self.rest.astype(np.float64)
        diagonal = rest + RIDGE * (np.sum(factor * factor) + rest.sum()) / len(rest)
        scaled = factor / diagonal[:, None]
        inner = np.eye(factor.shape[1]) + factor.T @ scaled
        return difference / diagonal - scaled @ np.linalg.solve(inner, scaled.T @ difference)


# --- Which one fits a network ---


def find_backgrounds(net, layers, photographs=None, quiet=False):
    """Return {layer: Background} of those of `layers` that have one for this network's features.

    photographs: a folder to make them of. Otherwise they come from within the weights file, where training puts them,
    from WEIGHTS.background.npz beside it, or from those that come with the program.
    """
    found = make_backgrounds(net, layers, photographs, quiet) if photographs else known_backgrounds(net)
    return {layer: found[layer] for layer in layers if layer in found}


def known_backgrounds(net):
    """Return {layer: Background} of all that is known of the network's features."""
    beside = [kept_path(net)] if kept_path(net).exists() else []
    found = {}
    for path in sorted(WEIGHTS.glob("*.background.npz")) + beside:
        found |= read_background(net, path)
    return found | parse_background(net, net.path, read_extras(net.path, "background."))


def background_layers(net, photographs=None, quiet=False):
    """Return the names of the layers that have a background, in the network's order; `photographs` as above."""
    found = make_backgrounds(net, [], photographs, quiet) if photographs else known_backgrounds(net)
    return [layer for layer in net.layers if layer in found]


def kept_path(net):
    """Return where a user's background for the network's weights is kept: WEIGHTS.background.npz."""
    return net.path.with_suffix(".background.npz")


def read_background(net, path):
    """Return {layer: Background} of a file, {} where it is another network's. UserError for a broken file."""
    arrays = dict(npy_entries(path))
    return parse_background(net, path, arrays) if told(arrays, "digest") == feature_digest(net) else {}


def told(arrays, name):
    """Return a text among the arrays of a background, "" where there is none."""
    return arrays.get(name, np.empty(0, np.uint8)).tobytes().decode("ascii", "replace")


def parse_background(net, path, arrays):
    """Return {layer: Background} from {LAYER.mean: array, ...}. UserError where they do not fit the network."""
    found = {}
    for layer in [key.removesuffix(".mean") for key in arrays if key.endswith(".mean")]:
        parts = [arrays.get(f"{layer}.{part}") for part in PARTS]
        layer = net.resolve(layer) if layer in net.layer_info or layer in net.all_aliases else layer
        channels = net.layer_info.get(layer, (0, None))[0]
        for part, shape in zip(parts, [(channels,), (channels, AXES), (channels,)], strict=True):
            if part is None or part.shape != shape or not np.isfinite(part).all():
                raise UserError(f"{path}: its background of {layer} does not fit the network: make it again")
        found[layer] = Background(*parts)
    return found


# --- From photographs ---


def make_backgrounds(net, layers, photographs, quiet=False):
    """Return {layer: Background} over a folder of photographs, and keep it beside the weights file.

    It is made for `layers` and those that the registry names for concepts, unless the kept one has them already.
    UserError where there are no photographs.
    """
    paths = list_images(photographs)
    wanted = [net.resolve(layer) for layer in entry(net.metadata.model).concept_layers]
    wanted += [layer for layer in layers if layer not in wanted]
    source = images_digest(paths, feature_digest(net))
    kept = dict(npy_entries(kept_path(net))) if kept_path(net).exists() else {}
    kept = kept if told(kept, "source") == source else {}
    missing = [layer for layer in wanted if f"{layer}.mean" not in kept]
    if missing:
        kept |= measure(net, photographs, paths, missing, quiet)
        kept |= {
            name: np.frombuffer(text.encode(), np.uint8)
            for name, text in (("digest", feature_digest(net)), ("source", source))
        }
        keep(kept_path(net), kept, quiet)
    return parse_background(net, kept_path(net), kept)


def measure(net, photographs, paths, layers, quiet=False):
    """Return {LAYER.mean: array, ..., pictures} over the photographs at `paths`."""
    features = image_features(net, paths, layers, quiet)
    count = len(features[layers[0]])
    if count < 2:
        raise UserError(f"{photographs}: a background takes some hundred photographs of all kinds, not one")
    if count < FEW:
        log(f"note: {count} photographs make a rough background; some hundreds of all kinds are better", quiet)
    found = {layer: statistics(rows) for layer, rows in features.items()}
    arrays = {f"{layer}.{part}": getattr(background, part) for layer, background in found.items() for part in PARTS}
    return arrays | {"pictures": np.array(count, np.int32)}


def statistics(features):
    """Return the Background of features N x C, a row an image; read a piece at a time, for they may lie on disk."""
    pieces = [slice(start, start + PIECE) for start in range(0, len(features), PIECE)]
    mean = sum(features[piece].sum(axis=0, dtype=np.float64) for piece in pieces) / len(features)
    covariance = np.zeros((len(mean), len(mean)))
    for piece in pieces:
        centered = features[piece] - mean
        covariance += centered.T @ centered / len(features)
    variances, axes = np.linalg.eigh(covariance)
    count = min(AXES, len(mean))
    factor = np.zeros((len(mean), AXES))
    factor[:, :count] = (axes * np.sqrt(np.maximum(variances, 0)))[:, ::-1][:, :count]
    factor = factor.astype(np.float16 if np.abs(factor).max() < np.finfo(np.float16).max else np.float32)
    rest = np.diag(covariance) - np.sum(factor.astype(np.float64) ** 2, axis=1)
    return Background(mean.astype(np.float32), factor, np.maximum(rest, 0).astype(np.float32))


def keep(path, arrays, quiet=False):
    """Write a background's file, whole or not at all; where that cannot be, say so and go on."""
    try:
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        log(f"note: the background is not kept: {error_text(error, path)}", quiet)
