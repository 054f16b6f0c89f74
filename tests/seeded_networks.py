"""Networks with the weights of seeded.py."""

import models
from models.weights_file import Metadata

from mlx.utils import tree_flatten
from seeded import CLASSES, weights


def build(name, num_classes=CLASSES):
    """A network of the registry in eval mode, with the statistics of its published weights. Its weights are lazy."""
    return Metadata(name, num_classes, aux=models.entry(name).aux).build().eval()


def load_seeded(net, case):
    """Set the seeded weights."""
    shapes = {path: array.shape for path, array in tree_flatten(net.parameters())}
    torchs = {path: (s[0], s[3], s[1], s[2]) if len(s) == 4 else s for path, s in shapes.items()}
    arrays = weights(torchs, case)
    arrays = {path: a.transpose(0, 2, 3, 1) if a.ndim == 4 else a for path, a in arrays.items()}
    net.load_arrays(arrays, "the seeded weights")
    return net
