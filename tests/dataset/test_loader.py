"""dataset/loader.py: batches depend on seed and epoch only, and broken images are passed over."""

import numpy as np
import pytest

from dataset import Augmentation, Loader, read_folder
from dataset.cli import UserError
from dataset.images import write_image


def reds(batches):
    return [[round(float(image[0, 0, 0])) for image in images] for images, _ in batches]


def test_an_epoch_shuffles_once_in_full_batches(tree):
    train, _ = read_folder(tree)
    with Loader(train, 4, 8, Augmentation(), workers=2) as loader:
        assert len(loader) == 4
        first = list(loader.epoch(0))
        for images, labels in first:
            assert images.shape == (4, 8, 8, 3) and images.dtype == np.float32
            assert labels.dtype == np.int32
            assert [int(image[0, 0, 0] >= 120) for image in images] == labels.tolist()
        seen = sum(reds(first), [])
        assert len(set(seen)) == 16 and seen != sorted(seen)
        assert reds(loader.epoch(1)) != reds(first)
        assert loader.data_seconds > 0


def test_batches_depend_on_seed_and_epoch_only(tmp_path):
    for number in range(9):
        path = tmp_path / "a" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        write_image(path, np.random.default_rng(number).uniform(0, 255, (20, 24, 3)))
    train, _ = read_folder(tmp_path)
    augmentation = Augmentation(rotation=10, colour=0.3)

    def batches(seed, epoch, start=0, workers=1, before=None):
        with Loader(train, 2, 8, augmentation, seed=seed, workers=workers) as loader:
            if before is not None:
                next(loader.epoch(before))  # an epoch given up after its first batch
            return [images for images, _ in loader.epoch(epoch, start)]

    wanted = batches(5, 1)
    assert len(wanted) == 4
    assert np.array_equal(batches(5, 1, workers=3), wanted)
    assert np.array_equal(batches(5, 1, start=2), wanted[2:])
    assert np.array_equal(batches(5, 1, workers=2, before=0), wanted)
    assert not np.array_equal(batches(6, 1), wanted)


def test_evaluation_is_every_picture_once_in_order(tree):
    train, _ = read_folder(tree)
    with Loader(train, 5, 8, workers=2) as loader:
        assert len(loader) == 4
        for _ in range(2):
            assert sum(reds(loader.epoch()), []) == list(range(0, 180, 10))


def test_processes_that_train_together_share_an_epoch(tree):
    train, _ = read_folder(tree)
    parts = []
    for rank in range(2):
        with Loader(train, 3, 8, Augmentation(), rank=rank, world_size=2, workers=1) as loader:
            parts.append(sum(reds(loader.epoch(2)), []))
    assert len(parts[0]) == len(parts[1]) == 9
    assert sorted(parts[0] + parts[1]) == list(range(0, 180, 10))


def test_broken_pictures_are_reported_once_and_skipped(tree):
    (tree / "ant" / "03.png").write_bytes((tree / "ant" / "03.png").read_bytes()[:60])
    (tree / "bee" / "14.png").write_text("no picture")
    train, _ = read_folder(tree)
    lines = []
    with Loader(train, 6, 8, Augmentation(), workers=2, report=lines.append) as loader:
        epochs = [reds(loader.epoch(epoch)) for epoch in (0, 1, 0)]
    assert all(len(batch) == 6 for epoch in epochs for batch in epoch)  # others took their places
    assert epochs[0] == epochs[2] != epochs[1]
    assert not {30, 140} & set(sum(epochs[0], []))
    assert len(lines) == 2 and sorted(loader.broken) == [str(tree / "ant" / "03.png"), str(tree / "bee" / "14.png")]
    assert all("03.png: broken picture" in line or "14.png: not a picture" in line for line in lines)
    with Loader(train, 6, 8, workers=2, report=lines.append) as loader:
        assert [len(labels) for _, labels in loader.epoch()] == [5, 6, 5]


def test_a_set_of_broken_pictures_ends_the_run(tmp_path):
    for number in range(3):
        path = tmp_path / "a" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_text("no picture")
    train, _ = read_folder(tmp_path)
    for augmentation in (None, Augmentation()):
        with (
            Loader(train, 2, 8, augmentation, workers=1, report=lambda line: None) as loader,
            pytest.raises(UserError, match="no picture of the set"),
        ):
            list(loader.epoch())
