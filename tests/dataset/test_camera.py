"""The path of a zoom."""

import numpy as np
import pytest

from dataset.camera import Step, plan_zoom, transform_view


def test_move_is_what_it_says():
    image = np.zeros((101, 151, 3), np.float32)
    image[38:43, 98:103] = 255  # about (row 40, column 100); the centre is (50, 75)

    def place(step):
        moved = transform_view(image, step)[..., 0]
        rows, columns = np.mgrid[:101, :151]
        return [(moved * index).sum() / moved.sum() for index in (rows, columns)]

    assert place(Step([])) == pytest.approx([40, 100], abs=0.01)
    assert place(Step([], zoom=1.5)) == pytest.approx([35, 112.5], abs=0.1)
    assert place(Step([], rotate=90)) == pytest.approx([25, 65], abs=0.1)  # counter-clockwise
    assert place(Step([], pan=(5, 2))) == pytest.approx([38, 95], abs=0.1)  # the view moves right and down
    assert place(Step([], zoom=1.5, center=(100 / 150, 0.4))) == pytest.approx([40, 100], abs=0.1)


def test_edges_are_reflected_and_flat_pictures_stay_flat():
    flat = np.full((20, 30, 3), 100, np.float32)
    assert np.allclose(transform_view(flat, Step([], zoom=0.5, rotate=20)), 100, atol=0.01)


def test_a_schedule_rests_at_its_frames_and_is_smooth_between():
    first = Step(["inception4c"], zoom=1.05)
    plan = plan_zoom(
        first,
        41,
        [{"frame": 20, "zoom": 1.2, "layers": ["inception3b=2"]}, {"frame": 40, "pan": [4, 0]}],
    )
    assert plan[0] == first
    assert plan[20].zoom == plan[40].zoom == 1.2
    assert plan[10].zoom == pytest.approx((1.05 * 1.2) ** 0.5)
    assert plan[10].layers == ["inception4c=0.500000", "inception3b=1.000000"]
    assert plan[20].layers == ["inception3b=2"]
    assert plan[20].pan == (2, 0) and plan[40].pan == [4, 0]
    zooms = np.log([step.zoom for step in plan[:21]])
    assert np.diff(zooms)[[0, -1]] == pytest.approx(0, abs=0.002) and np.diff(zooms).min() >= 0
