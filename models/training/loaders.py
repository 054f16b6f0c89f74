"""Batches of a run: of images, or of what the frozen layers make of them."""

from pathlib import Path

import numpy as np
from mlx.utils import tree_flatten

from dataset import Loader
from dataset.cli import log
from dataset.features import FeatureLoader, compute_features, fingerprint

from .freezing import is_below
from .step import frozen_features


def make_loader(run, folder, augmentation=None, size=None, cached=None, shared=True):
    """Return a loader of batches of a folder: of images, or of their frozen features if `cached` (None: as --cache).

    size: of the images, pixels (None: as --image-size). shared: among the processes, each of which gets its part, as
    images to train on are: only those are told where they cannot be read.
    """
    args, group, size = run.args, run.group, size or run.args.image_size
    share = {"seed": args.seed, "rank": group.rank(), "world_size": group.size()} if shared else {}
    batch = args.batch_size // group.size()
    report = log if run.first and shared else lambda line: None
    if not (args.cache if cached is None else cached):
        return Loader(folder, batch, size, augmentation, workers=args.workers, report=report, **share)
    views = 2 if augmentation and augmentation.flip else 1
    features = compute_features(
        folder,
        lambda images: np.array(frozen_features(run.net, images, run.split)),
        size,
        views,
        cache_file(run, folder, size, views),
        workers=args.workers,
        quiet=args.quiet or not run.first,
        report=report,
    )
    return FeatureLoader(folder, features, batch, augmentation, **share)


def cache_file(run, folder, size, views):
    """Return the file that the frozen features of a folder are kept in: its name tells what they depend on."""
    net = run.net
    arrays = {path: np.array(array) for path, array in tree_flatten(net.parameters())}
    learned = {path for path, _ in tree_flatten(net.trainable_parameters())}
    before = net.layers[: net.layers.index(run.split) + 1]
    frozen = [path for path in arrays if any(is_below(path, layer) for layer in before)]
    arrays = {path: arrays[path] for path in frozen if path not in learned}
    meta = [getattr(net.metadata, key) for key in ("model", "mean", "std", "channel_order")]
    name = fingerprint(folder, arrays, run.split, size, views, meta)
    own = "" if run.first else f"-{run.group.rank()}"  # processes on one machine would write the same file
    return Path("runs/.cache") / f"{name}{own}.npy"
