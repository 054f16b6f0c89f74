"""The networks, and all that computes with them.

import models
net = models.load("googlenet")
acts = net.activations(images, ["inception4c", "fc"])   # (N, H, W, 3) float32 RGB 0..255 -> {name: mx.array}
"""

from .kernels import blas

blas.set_variables()  # before anything loads a BLAS

from dataset import startup  # noqa: E402, F401  (Ctrl-C from here on says one line)

blas.load()  # before anything imports mlx.core

import functools  # noqa: E402
from pathlib import Path  # noqa: E402

from dataset.cli import UserError, log  # noqa: E402

from . import weights_file  # noqa: E402
from .network import Network  # noqa: E402
from .registry import REGISTRY, entry  # noqa: E402, F401

__version__ = "0.1.0"
WEIGHTS = Path(__file__).parent / "weights"
STARTER = WEIGHTS / "googlenet_starter_mlx.npz"
STARTER_NOTE = "note: this is the starter network; `python convert.py --download googlenet` brings the ImageNet classic"


def find(name):
    """Return the path of a network's weights: models/weights/<name>_mlx.npz, or for googlenet the bundled starter."""
    entry(name)
    path = WEIGHTS / f"{name}_mlx.npz"
    if path.exists():
        return path
    if name == "googlenet" and STARTER.exists():
        return STARTER
    raise UserError(f"no weights for {name} here: get them with `python convert.py --download {name}`, or name a file")


def installed(name):
    """Say whether weights of the network `name` are here."""
    try:
        return find(name).exists()
    except UserError:
        return False


@functools.cache
def advise(path):
    """Say on stderr, once, what would make dreams with the weights at `path` faster or better."""
    if blas.missing():
        log(blas.NOTE)
    if path == STARTER:
        log(STARTER_NOTE)


def load(name: str | None = None, weights: str | Path | None = None) -> Network:
    """Load a network with its weights, in eval mode.

    name: a name of the registry; None takes the one that the weights file names (googlenet without a file).
    weights: a file that convert.py or train_dream.py wrote, or a published one; None looks for it (see find()).
    Raises UserError where there are no weights, or they do not fit the network.
    """
    if name is not None:
        entry(name)
    path = Path(weights) if weights else find(name or "googlenet")
    arrays, metadata = weights_file.read(path)
    if name not in (None, metadata.model):
        raise UserError(f"{path}: these are weights of {metadata.model}, not of {name}")
    net = metadata.build()
    net.load_arrays(arrays, path)
    net.path = path
    return net.eval()
