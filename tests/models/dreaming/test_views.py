"""The move of a zoom's frames, on MLX, against SciPy's."""

from models.dreaming import views

import numpy as np
import pytest
from conftest import noise_image

from dataset import camera

STEPS = [
    {"zoom": 1.05},
    {"zoom": 0.3, "pan": (40.5, -3)},  # far beyond the border, which reflects more than once
    {"zoom": 1.1, "rotate": 3, "center": (0.2, 0.9)},
    {"zoom": 0.5, "rotate": -100, "pan": (-200, 7.25)},
    {"pan": (3, 2)},
    {"zoom": 0.001, "rotate": 45, "pan": (1e6, -1e6)},
]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("size", [(97, 140), (5, 1)])
def test_a_move_is_scipys(size, step, monkeypatch):
    image, step = np.float32(noise_image(*size)), camera.Step([], **step)
    expected = camera.transform_view(image, step)
    for cpu in (True, False):
        monkeypatch.setattr(views, "on_cpu", lambda cpu=cpu: cpu)
        moved = views.transform_view(image, step)
        assert moved.dtype == np.float32 and moved.shape == image.shape
        assert np.abs(moved - expected).max() < 1e-3  # of 255
