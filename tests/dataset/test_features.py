"""Features of images, computed once and kept."""

import os
from pathlib import Path

import numpy as np
import pytest
from seeded import draw

from dataset import Augmentation, features, read_folder
from dataset.cli import UserError
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


def test_where_nothing_can_be_written_features_that_may_be_had_without_come_from_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        write_image(f"set/a/{i}.png", draw(f"{i}", (40, 40, 3)))
    folder, _ = read_folder("set")
    options = {"workers": 1, "quiet": True}
    network = lambda images: images[:, :2, ::32, :]  # noqa: E731
    kept = compute_features(folder, network, 64, 2, "f.npy", **options)

    Path("runs").touch()  # where a folder cannot be made, as on a disk that is read-only
    found = compute_features(folder, network, 64, 2, "runs/f.npy", optional=True, **options)
    np.testing.assert_array_equal(found, kept)
    with pytest.raises(OSError):
        compute_features(folder, network, 64, 2, "runs/f.npy", **options)

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refused)  # what is there is still read
    np.testing.assert_array_equal(compute_features(folder, None, 64, 2, "f.npy", **options), kept)
    usage = features.shutil.disk_usage(".")
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: usage._replace(free=100))
    found = compute_features(folder, network, 64, 2, "g.npy", optional=True, **options)
    np.testing.assert_array_equal(found, kept)
    with pytest.raises(UserError, match="make room"):
        compute_features(folder, network, 64, 2, "g.npy", **options)
    assert sorted(path.name for path in Path().iterdir()) == ["f.npy", "runs", "set"]
