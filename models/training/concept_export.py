"""What is stored with trained weights so that one can dream of each class: its concept, and the backgrounds.

A concept is made of the training images as the trained network sees them (models/dreaming/concepts.py). The background
is the base's, which learning without forgetting keeps valid; or photographs, seen through the trained network. To tell
a class from, its mean moves towards that of the other classes, the further the more there are: what a whole folder has
in common, such as the blur of small images enlarged, is then no part of any class.
"""

import dataclasses
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from dataset import ImageFolder, Loader
from dataset.cli import UsageError, log

from ..dreaming.background import PARTS, find_backgrounds, statistics
from ..dreaming.class_concepts import pack_concepts
from ..dreaming.concepts import concept_of, default_layer
from ..dreaming.features import IMAGE_SIZE, list_images
from ..fingerprint import digest_of_arrays
from ..kernels.bands import cut, join
from ..network import layers_after
from ..registry import entry
from .loaders import make_loader
from .step import inputs

BACKGROUND = "background"  # the class of the photographs
CLASS_IMAGES = 100  # of each class, at most
ALL_IMAGES = 2000  # of all classes
BACKGROUND_CLASSES = 3  # the background counts for so many beside the other classes


def add_photographs(train_set, val_set, photographs):
    """Return both sets with one more class, of the photographs in a folder, all of them for training."""
    if BACKGROUND in train_set.classes:
        raise UsageError(
            f"--background {photographs} is learnt as the class {BACKGROUND!r}: name that folder otherwise"
        )
    paths = tuple(list_images(photographs))
    classes = (*train_set.classes, BACKGROUND)
    labels = np.concatenate([train_set.labels, np.full(len(paths), len(train_set.classes), np.int32)])
    return ImageFolder(classes, train_set.paths + paths, labels), dataclasses.replace(val_set, classes=classes)


def evenly(folder, counts):
    """Return so many images of each class of a folder, evenly spaced."""
    chosen = []
    for label, count in enumerate(counts):
        rows = np.flatnonzero(folder.labels == label)
        chosen += rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)].tolist()
    return ImageFolder(folder.classes, tuple(folder.paths[row] for row in chosen), folder.labels[chosen])


@dataclass
class ConceptExport:
    """Makes the concepts of a run's classes as its network stands."""

    loader: Loader  # of the images that they are made of
    layers: list  # that backgrounds are made or carried over for
    backgrounds: dict  # {layer: Background} of the base; {} where photographs stand in their place

    @classmethod
    def prepare(cls, run, train_set):
        """Return the export for a run; None where it has no background to tell the classes from."""
        net, args = run.net, run.args
        layers = [net.resolve(name) for name in entry(net.metadata.model).concept_layers]
        backgrounds = {}
        if not args.background:
            backgrounds = find_backgrounds(run.base, layers) if run.base and args.retain else {}
            if default_layer(net) not in backgrounds:
                log("note: no background for the trained network, so that --class will mean the bare logit, which "
                    "shows less: see --background", args.quiet)  # fmt: skip
                return None
        classes = len(train_set.classes)
        counts = np.full(classes, max(5, min(CLASS_IMAGES, ALL_IMAGES // classes)))
        counts[classes - 1] = ALL_IMAGES if args.background else counts[classes - 1]
        after = set(layers) <= set(layers_after(net.layers, run.split))
        loader = make_loader(run, evenly(train_set, counts), size=IMAGE_SIZE, cached=args.cache and after, shared=False)
        return cls(loader, layers, backgrounds)

    def make(self, run):
        """Return ({class: Concept}, {layer: Background}) of the network as it is. It is put into eval mode."""
        net, args = run.net, run.args
        layer, classes = default_layer(net), net.classes[:-1] if args.background else net.classes
        wanted = self.layers if args.background else [layer]
        features, labels = self.features(net, run.split, wanted)
        backgrounds = self.backgrounds
        if args.background:
            photographs = labels == len(classes)
            backgrounds = {name: statistics(rows[photographs]) for name, rows in features.items()}
        arrays = {path: np.array(array) for path, array in tree_flatten(net.parameters())}
        digest = digest_of_arrays(arrays, net.metadata.model)
        rows = {name: features[layer][labels == number] for number, name in enumerate(classes)}
        means = {name: own.mean(axis=0, dtype=np.float64) for name, own in rows.items() if len(own)}
        found = {}
        for name in means:
            others = [mean for other, mean in means.items() if other != name]
            background = among(backgrounds[layer], others)
            concept = concept_of(net, name, layer, rows[name], background, weights=digest)
            found[name] = dataclasses.replace(concept, name=name)
        return found, backgrounds

    def features(self, net, split, layers):
        """Return ({layer: N x C}, labels): of each image the mean over positions of the layers' activations."""
        net.eval()
        rows, labels = {layer: [] for layer in layers}, []
        for batch, numbers in self.loader.epoch():
            if batch.dtype == np.float16:
                stages = net.stages(cut(inputs(net, batch, split)), after=split)
                found = {name: join(activation) for name, activation in stages if name in layers}
            else:
                found = net.activations(batch, layers)
            means = [found[layer].reshape(len(batch), -1, found[layer].shape[-1]).mean(axis=1) for layer in layers]
            mx.eval(means)
            for layer, mean in zip(layers, means, strict=True):
                rows[layer].append(np.array(mean))
            labels.append(numbers)
        return {layer: np.concatenate(parts) for layer, parts in rows.items()}, np.concatenate(labels)


def among(background, others):
    """Return a Background whose mean lies between its own and that of the other classes, a list of C numbers each.

    A single other class says nothing of what a folder has in common.
    """
    if len(others) < 2:
        return background
    share = (len(others) - 1) / (len(others) - 1 + BACKGROUND_CLASSES)
    mean = (1 - share) * background.mean + share * np.mean(others, axis=0)
    return dataclasses.replace(background, mean=mean.astype(np.float32))


def extras_of(concepts, backgrounds, classes):
    """Return the extra entries of a weights file for {class: Concept} and {layer: Background}."""
    arrays = {
        f"background.{layer}.{part}": getattr(background, part)
        for layer, background in backgrounds.items()
        for part in PARTS
    }
    return pack_concepts(concepts, classes) | arrays
