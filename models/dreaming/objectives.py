"""Objectives: the function of an image that a dream maximises, and the guide image that may take part in it."""

import mlx.core as mx
import numpy as np

from dataset.cli import UsageError, UserError

from ..kernels.arrays import on_cpu

CONCEPT_LINEAR = 0.001  # the share of z itself in a concept's objective
HEADROOM = 16  # how far the gradient at a layer, in float16, stays below the activations themselves


def objective_function(net, targets, features=None, dtype=mx.float32):
    """Return a function image (H x W x 3 mx.array) -> the weighted sum over the targets of

        mean(a^2) / 2     a: the activation; its gradient is the activation itself, as in 2015
        mean(a)           where the target is linear
        mean(a . guide)   with the `features` of a guide: its vector with the largest dot product at each position
        mean(max(z, 0)^2) + 0.001 mean(z)
                          of a concept: z = w . a - offset, how much a position looks like it. More of what there is a
                          little of makes fewer and better bodies than mean(z), whose small share revives a dead start

    A mean, so that weights of layers of different sizes compare; the steps' length does not depend on it. In float16
    it is made larger by a factor of the activations' size alone, since gradients would vanish otherwise.
    """
    names = [target.layer for target in targets]
    if features and any(target.concept for target in targets):
        raise UsageError("a guide has no part in the dream of a concept, which --class means on weights that store it")

    def objective(image):
        activations = net.activations(image[None], names, dtype)
        scale = 1 if dtype == mx.float32 else max(a.size for a in activations.values()) / HEADROOM
        total = 0
        for i, target in enumerate(targets):
            a = target.select(activations[target.layer]).astype(mx.float32)
            if target.concept:
                a = concept_objective(a, target.concept, target.linear)
            elif features:
                a = a * mx.stop_gradient(best_matches(a, features[i]))
            elif not target.linear:
                a = a * a / 2
            total = total + (a * (target.weight * scale / a.size)).sum()  # the mean, in one kernel less
        return total

    return objective


def concept_objective(activation, concept, linear):
    """Return what a position's activation N x ... x C adds to the objective of a concept, N x ...; z if `linear`."""
    z = activation @ mx.array(concept.direction.astype(np.float32)) - concept.offset
    return z if linear else mx.maximum(z, 0) ** 2 + CONCEPT_LINEAR * z


def precision_dtype(precision):
    """Return MLX's dtype of that name. Raises UsageError for float16 on a CPU."""
    if precision == "float16" and on_cpu():
        raise UsageError("--precision float16 is for GPUs; on a CPU it would be slower than float32")
    return getattr(mx, precision)


class Guide:
    """An image to dream of, H x W x 3, 0..255, whose features are computed once for any number of dreams.

    path: the file it comes from, for messages.
    """

    def __init__(self, image, path=None):
        self.image, self.path = image, path
        self.cached = {}

    def features(self, net, targets):
        """Return its activation at each target, 1 x h x w x C. Raises UserError where it is too small for them."""
        key = id(net), tuple(targets)
        if key not in self.cached:
            layers = [target.layer for target in targets]
            try:
                activations = net.activations(self.image[None], layers)
                found = [target.select(activations[target.layer]) for target in targets]
            except ValueError:  # a window larger than its input
                found = []
            if not found or not all(min(features.shape) for features in found):
                size = "{1} x {0} pixels".format(*self.image.shape)
                name = f"{self.path}: {size}" if self.path else size
                raise UserError(f"--guide {name} are too few for {', '.join(layers)}: take a larger picture")
            self.cached[key] = found
            mx.eval(self.cached[key])
        return self.cached[key]


def best_matches(activation, features):
    """Find for each position of an activation the vector among `features` with the largest dot product.

    Both are 1 x h x w x C, each with an h and w of its own. Returns the activation's shape.
    """
    a = activation.reshape(-1, activation.shape[-1])
    candidates = features.reshape(-1, features.shape[-1])
    rows = max(1, 2**24 // candidates.shape[0])  # keeps the table of dot products under 64 MB
    best = [mx.argmax(a[i : i + rows] @ candidates.T, axis=1) for i in range(0, a.shape[0], rows)]
    return candidates[mx.concatenate(best)].reshape(activation.shape)
