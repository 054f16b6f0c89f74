"""Objectives: the function of an image that a dream maximises, and the guide image that may take part in it."""

import mlx.core as mx
import numpy as np

from dataset.cli import UsageError

CONCEPT_LINEAR = 0.001  # the share of z itself in a concept's objective


def objective_function(net, targets, features=None):
    """Return a function image (H x W x 3 mx.array) -> the weighted sum over the targets of

        mean(a^2) / 2     a: the activation; its gradient is the activation itself, as in 2015
        mean(a)           where the target is linear
        mean(a . guide)   with the `features` of a guide: its vector with the largest dot product at each position
        mean(max(z, 0)^2) + 0.001 mean(z)
                          of a concept: z = w . a - offset, how much a position looks like it. More of what there is a
                          little of makes fewer and better bodies than mean(z), whose small share revives a dead start

    A mean, so that weights of layers of different sizes compare; the steps' length does not depend on it.
    """
    names = [target.layer for target in targets]
    if features and any(target.concept for target in targets):
        raise UsageError("a guide has no part in the dream of a concept, which --class means on weights that store it")

    def objective(image):
        activations = net.activations(image[None], names)
        total = 0
        for i, target in enumerate(targets):
            a = target.select(activations[target.layer])
            if target.concept:
                a = concept_objective(a, target.concept, target.linear)
            elif features:
                a = a * mx.stop_gradient(best_matches(a, features[i]))
            elif not target.linear:
                a = a * a / 2
            total = total + target.weight * a.mean()
        return total

    return objective


def concept_objective(activation, concept, linear):
    """Return what a position's activation N x ... x C adds to the objective of a concept, N x ...; z if `linear`."""
    z = activation @ mx.array(concept.direction.astype(np.float32)) - concept.offset
    return z if linear else mx.maximum(z, 0) ** 2 + CONCEPT_LINEAR * z


class Guide:
    """An image to dream of, H x W x 3, 0..255, whose features are computed once for any number of dreams."""

    def __init__(self, image):
        self.image = image
        self.cached = {}

    def features(self, net, targets):
        """Return its activation at each target, 1 x h x w x C."""
        key = id(net), tuple(targets)
        if key not in self.cached:
            activations = net.activations(self.image[None], [target.layer for target in targets])
            self.cached[key] = [target.select(activations[target.layer]) for target in targets]
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
