"""Color and contrast, held."""

import numpy as np
from conftest import smooth_image

from dataset.drift import match_statistics, statistics


def test_held_statistics():
    image = np.float32(smooth_image(40, 40))
    mean, std = np.array([100, 120, 140]), np.array([20, 30, 10])
    held = match_statistics(image, mean, std)
    assert np.allclose(statistics(held), (mean, std), atol=0.01)
