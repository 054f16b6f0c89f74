"""Features of images, computed once and kept."""

import os
from pathlib import Path

import numpy as np
from seeded import draw

from dataset import Augmentation, read_folder
from dataset.features import FeatureLoader, compute_features
from dataset.images import write_image


def test_features_are_computed_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, count in (("across", 2), ("down", 3)):
        for i in range(count):
            write_image(f"set/{name}/{i}.png", 127 + 100 * draw(f"{name} {i}", (40, 40, 3)))
    folder, _ = read_folder("set")
    calls = []

    def network(images):
        calls.append(len(images))
        return images[:, :2, ::32, :]  # not the same in the mirror

    Path("recent.npy").touch()
    Path("unused.npy").touch()
    os.utime("unused.npy", (0, 0))
    features = [compute_features(folder, network, 64, 2, "f.npy", workers=1, quiet=True) for _ in range(2)]
    assert sorted(Path().glob("*.npy")) == [Path("f.npy"), Path("recent.npy")]
    assert calls == [5, 5] and features[1].shape == (5, 2, 2, 2, 3) and features[1].dtype == np.float16
    mirrored = FeatureLoader(folder, features[0], 2, Augmentation((1, 1), flip=1.0), seed=3)
    batches = list(mirrored.epoch(1))
    assert [len(labels) for _, labels in batches] == [2, 2]
    assert all(any(np.array_equal(row, views[1]) for views in features[0]) for batch, _ in batches for row in batch)
    assert np.array_equal(next(mirrored.epoch(1, start=1))[0], batches[1][0])
    everything = FeatureLoader(folder, features[1], 2).epoch()
    assert np.concatenate([labels for _, labels in everything]).tolist() == [0, 0, 1, 1, 1]
