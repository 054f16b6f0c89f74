"""Motion between the frames of a video, and scene cuts."""

import numpy as np
import pytest
from conftest import smooth_image

from dataset import flow


def test_scene_cuts_are_found():
    one, moved, other = (
        np.float32(smooth_image(64, 80)),
        np.float32(np.roll(smooth_image(64, 80), 3, 1)),
        np.zeros((64, 80, 3)),
    )
    assert not flow.is_scene_cut(one, moved)
    assert flow.is_scene_cut(one, np.float32(255 - smooth_image(64, 80))) and flow.is_scene_cut(one, other + 255)


def test_flow_carries_the_dream_with_what_moves():
    pytest.importorskip("cv2", reason="OpenCV is an optional dependency")
    world = np.float32(smooth_image(120, 160))
    before, after = world[20:84, 30:126], world[18:82, 26:122]  # all moves 2 down and 4 right
    layer = np.zeros_like(before)
    layer[30:34, 40:44] = 100
    carried = flow.warp(layer, before, after)
    rows, columns = np.mgrid[:64, :96]
    weight = carried[..., 0].clip(0)
    center = [(weight * index).sum() / weight.sum() for index in (rows, columns)]
    assert center == pytest.approx([33.5, 45.5], abs=0.5)
    # what comes into view at the left has no dream to carry
    assert np.abs(flow.warp(np.full_like(before, 50), before, after)[20:40, 0]).mean() < 25
