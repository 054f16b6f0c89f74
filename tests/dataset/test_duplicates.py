"""dataset/duplicates.py: what counts as the same image."""

import numpy as np
from scenes import scene

from dataset import duplicates


def test_different_pictures_are_not_twins():
    """Hashes of unlike pictures may come near; it is the thumbnails that must differ then."""
    thumbnails = [np.asarray(scene(seed).resize((16, 16)), np.float32) for seed in range(40)]
    for i, a in enumerate(thumbnails):
        assert not any(duplicates.is_duplicate(a, b, k) for b in thumbnails[:i] for k in range(8))
    assert all(duplicates.is_duplicate(a, a + np.float32(20), 0) for a in thumbnails)
    white, black = np.full((16, 16, 3), 255, np.float32), np.zeros((16, 16, 3), np.float32)
    assert duplicates.is_duplicate(white, white - 1, 0) and not duplicates.is_duplicate(white, black, 0)


def test_orientations_of_pictures_and_arrays_are_the_same():
    picture = scene(1, 16, 16)
    for name, turned, array in zip(
        duplicates.ORIENTATIONS,
        duplicates.orientations(picture),
        duplicates.orientations_of_array(np.asarray(picture)),
        strict=True,
    ):
        assert np.array_equal(np.asarray(turned), array), name
