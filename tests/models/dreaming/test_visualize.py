"""Feature visualisation: what a class or a channel looks like."""

from models.dreaming.targets import parse_targets
from models.dreaming.visualize import rotate_scale, visualize

import mlx.core as mx
import numpy as np

MONARCH = 323  # its number among ImageNet's classes


def test_visualisation_climbs_and_repeats_itself(net):
    targets = parse_targets(net, classes=[MONARCH])
    start, shown, again = (visualize(net, targets, 48, 47, steps=steps, seed=3) for steps in (0, 12, 12))
    assert shown.shape == (48, 47, 3) and np.array_equal(shown, again) and shown.min() >= 0 and shown.max() <= 255
    logits = [np.array(net(mx.array(image[None])))[0, MONARCH] for image in (start, shown)]
    assert logits[1] > logits[0] + 1


def test_dead_channels_are_visualised(net):
    noise, shown = (visualize(net, parse_targets(net, ["inception4c:6"]), 48, 48, steps=steps) for steps in (0, 10))
    peaks = [
        net.activations(image[None], ["inception4c"])["inception4c"][..., 6].max().item() for image in (noise, shown)
    ]
    assert peaks[0] == 0 and peaks[1] > 0


def test_rotating_by_nothing_changes_nothing():
    image = mx.array(np.random.default_rng(1).normal(size=(20, 30, 3)).astype(np.float32))
    assert np.allclose(rotate_scale(image, 1, 0), image, atol=1e-5)
    quarter = rotate_scale(image[:, :20], 1, np.pi / 2)
    assert np.allclose(quarter, np.rot90(np.array(image[:, :20]), -1), atol=1e-4) or np.allclose(
        quarter, np.rot90(np.array(image[:, :20])), atol=1e-4
    )
    assert rotate_scale(image, 1.1, 0.1).shape == (22, 33, 3)
