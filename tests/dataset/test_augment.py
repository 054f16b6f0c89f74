"""dataset/augment.py: crops, flips, turns and color changes do what their numbers say."""

import numpy as np
import pytest

from dataset import augment


def gradient(height=40, width=60):
    """Red grows from left to right, green from top to bottom, to 240."""
    y, x = np.mgrid[:height, :width]
    return np.stack([240 * x / width, 240 * y / height, np.full((height, width), 9.0)], axis=2).astype(np.float32)


def test_random_resized_crop_takes_the_area_it_is_told():
    rng = np.random.default_rng(0)
    whole = augment.random_resized_crop(gradient(60, 60), rng, 60, scale=(1, 1), ratio=(1, 1))
    assert np.array_equal(whole, gradient(60, 60))
    for _ in range(20):
        crop = augment.random_resized_crop(gradient(60, 60), rng, 30, scale=(0.25, 0.25), ratio=(1, 1))
        assert crop.shape == (30, 30, 3)
        assert np.ptp(crop[:, :, 0]) == pytest.approx(4 * 29, abs=1)  # 30 columns, not resampled
    extreme = augment.random_resized_crop(gradient(4, 400), rng, 8, scale=(0.9, 1), ratio=(3 / 4, 4 / 3))
    assert extreme.shape == (8, 8, 3) and np.ptp(extreme[:, :, 0]) < 4  # the central square or so


def test_random_flip_flips_half_of_the_time():
    image, rng = gradient(4, 6), np.random.default_rng(0)
    flipped = [np.array_equal(augment.random_flip(image, rng), image[:, ::-1]) for _ in range(200)]
    assert 70 < sum(flipped) < 130
    assert np.array_equal(augment.random_flip(image, rng, 0), image)


def test_random_rotation_turns_about_the_centre_without_black_corners():
    image = gradient(41, 41)
    image[20, 20] = 255
    turned = augment.random_rotation(image + 40, np.random.default_rng(3), 10)
    assert turned.shape == image.shape and turned.dtype == np.float32
    assert turned.min() >= 40
    assert np.abs(turned - image - 40).mean() > 1
    assert turned[20, 20, 2] > 200  # the centre stays
    assert augment.random_rotation(image, np.random.default_rng(3), 0) is image


def test_color_jitter_changes_each_property_and_keeps_grey_grey():
    rng = np.random.default_rng(0)
    grey = np.full((3, 3, 3), 100, np.float32)
    results = np.array([augment.color_jitter(grey, rng, 0.2) for _ in range(300)])
    assert np.ptp(results, axis=-1).max() < 1e-3
    assert 78 < results.min() < 85 and 115 < results.max() < 122  # flat grey: only brightness can change it
    image = gradient()
    assert np.array_equal(augment.color_jitter(image, rng, 0), image)
    jittered = augment.color_jitter(image, rng, 0.9)
    assert jittered.dtype == np.float32 and jittered.min() >= 0 and jittered.max() <= 255


def test_center_crop_is_central_and_of_the_size_asked():
    crop = augment.center_crop(gradient(32, 64), 28)  # 32 is 28 * 8 / 7: no resampling
    assert np.array_equal(crop, gradient(32, 64)[2:30, 18:46])
    assert augment.center_crop(gradient(5, 200), 14).shape == (14, 14, 3)
