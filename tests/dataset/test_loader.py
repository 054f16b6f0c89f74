"""dataset: finding pictures, augmentations, and batches from worker processes."""

import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from dataset import Augmentation, Loader, augment, find_pictures, read_folder
from dataset.cli import UserError
from dataset.images import PictureError, read_image, read_picture, write_image
from dataset.workers import Workers


def picture(path, seed=0, height=20, width=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.random.default_rng(seed).uniform(0, 255, (height, width, 3)))


@pytest.fixture
def tree(tmp_path):
    """Two classes of 12 and 6 pictures whose red level is their number: 0, 10, 20, ..."""
    for number in range(18):
        path = tmp_path / "set" / ("ant" if number < 12 else "bee") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, np.full((16, 16, 3), (10 * number, 128, 255), np.float32))
    return tmp_path / "set"


def reds(batches):
    return [[round(float(image[0, 0, 0])) for image in images] for images, _ in batches]


# finding


def test_classes_are_sorted_nested_folders_belong_and_the_rest_does_not(tmp_path):
    picture(tmp_path / "wasp" / "a.png")
    picture(tmp_path / "ant" / "deep" / "er" / "b.JPG")
    picture(tmp_path / "ant" / ".hidden" / "c.png")
    picture(tmp_path / "stray.png")
    (tmp_path / "ant" / "notes.txt").write_text("no picture")
    train, val = read_folder(tmp_path)
    assert train.classes == val.classes == ("ant", "wasp")
    assert [os.path.relpath(path, tmp_path) for path in train.paths] == ["ant/deep/er/b.JPG", "wasp/a.png"]
    assert train.labels.tolist() == [0, 1] and train.counts.tolist() == [1, 1]
    assert len(val) == 0
    assert len(find_pictures(tmp_path)) == 3  # the stray one too: no classes are asked for


def test_symbolic_links_count_once_and_loops_end(tmp_path):
    picture(tmp_path / "set" / "b" / "real.png")
    picture(tmp_path / "elsewhere" / "far.png")
    os.symlink(tmp_path / "set" / "b" / "real.png", tmp_path / "set" / "b" / "again.png")
    (tmp_path / "set" / "a").mkdir()
    os.symlink(tmp_path / "set" / "b" / "real.png", tmp_path / "set" / "a" / "other.png")
    os.symlink(tmp_path / "elsewhere", tmp_path / "set" / "a" / "linked")
    os.symlink(tmp_path / "set", tmp_path / "set" / "b" / "loop")
    train, _ = read_folder(tmp_path / "set")
    assert [os.path.relpath(path, tmp_path / "set") for path in train.paths] == ["a/linked/far.png", "b/real.png"]


def test_the_validation_draw_is_stratified_by_seed_and_stable(tree, tmp_path):
    train, val = read_folder(tree, val=0.25, seed=1)
    assert train.counts.tolist() == [9, 4] and val.counts.tolist() == [3, 2]
    assert not set(train.paths) & set(val.paths)
    assert read_folder(tree, val=0.25, seed=1)[1].paths == val.paths
    assert read_folder(tree, val=0.25, seed=2)[1].paths != val.paths
    picture(tree / "aphid" / "1.png")
    train, more = read_folder(tree, val=0.25, seed=1)
    assert more.paths == val.paths  # a new class changes no other, and its only picture stays in training
    assert train.counts.tolist() == [9, 1, 4]


def test_train_and_val_are_taken_as_found(tmp_path):
    for name in ("train/a/1", "train/a/2", "train/b/3", "val/b/4", "test/c/5"):
        picture(tmp_path / f"{name}.png")
    train, val = read_folder(tmp_path, val=0.5)
    assert train.classes == ("a", "b") and train.counts.tolist() == [2, 1] and val.counts.tolist() == [0, 1]
    picture(tmp_path / "val" / "d" / "6.png")
    with pytest.raises(UserError, match="val: class d is not in"):
        read_folder(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    picture(tmp_path / "train" / "1.png")
    picture(tmp_path / "bus" / "2.png")
    assert read_folder(tmp_path)[0].classes == ("bus", "train")


def test_folders_without_pictures_are_explained(tmp_path, capsys):
    with pytest.raises(UserError, match="no such folder"):
        read_folder(tmp_path / "none")
    picture(tmp_path / "flat" / "1.png")
    with pytest.raises(UserError, match="put them in"):
        read_folder(tmp_path / "flat")
    (tmp_path / "empty").mkdir()
    read_folder(tmp_path)
    assert "empty: no pictures; the class is left out" in capsys.readouterr().err


# reading


def test_read_picture_agrees_with_read_image(tmp_path):
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (5, 7, 4), np.uint8)
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    Image.fromarray(rgba[:, :, :3]).quantize(8).save(tmp_path / "palette.gif")
    Image.fromarray(rgba[:, :, 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(rgba[:, :, :3]).convert("CMYK").save(tmp_path / "print.tif")
    for path in tmp_path.iterdir():
        assert np.array_equal(np.asarray(read_picture(path)), read_image(path)), path.name


def test_what_is_wrong_with_a_file_is_told(tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    picture(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:200])
    picture(tmp_path / "large.png")
    for name, reason in (("text.jpg", "not a picture"), ("cut.png", "broken"), ("large.png", "too large")):
        with pytest.raises(PictureError) as caught:
            read_picture(tmp_path / name, max_pixels=100)
        assert caught.value.reason == ("too large" if name != "text.jpg" else reason)
    with pytest.raises(PictureError) as caught:
        read_picture(tmp_path / "cut.png")
    assert caught.value.reason == "broken"


def test_only_formats_of_pictures_are_opened(tmp_path):
    """Pillow would hand an EPS to Ghostscript, whatever its name; phones' two-frame JPEGs (MPO) are pictures."""
    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    image.save(tmp_path / "program.jpg", format="EPS")
    with pytest.raises(PictureError, match="not a picture"):
        read_picture(tmp_path / "program.jpg")
    image.save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[image])
    assert read_picture(tmp_path / "phone.jpg").size == (8, 8)


# augmentations


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


def test_colour_jitter_changes_each_property_and_keeps_grey_grey():
    rng = np.random.default_rng(0)
    grey = np.full((3, 3, 3), 100, np.float32)
    results = np.array([augment.colour_jitter(grey, rng, 0.2) for _ in range(300)])
    assert np.ptp(results, axis=-1).max() < 1e-3
    assert 78 < results.min() < 85 and 115 < results.max() < 122  # flat grey: only brightness can change it
    image = gradient()
    assert np.array_equal(augment.colour_jitter(image, rng, 0), image)
    jittered = augment.colour_jitter(image, rng, 0.9)
    assert jittered.dtype == np.float32 and jittered.min() >= 0 and jittered.max() <= 255


def test_centre_crop_is_central_and_of_the_size_asked():
    crop = augment.centre_crop(gradient(32, 64), 28)  # 32 is 28 * 8 / 7: no resampling
    assert np.array_equal(crop, gradient(32, 64)[2:30, 18:46])
    assert augment.centre_crop(gradient(5, 200), 14).shape == (14, 14, 3)


# batches


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
        assert loader.waited > 0


def test_batches_depend_on_seed_and_epoch_only(tmp_path):
    for number in range(9):
        picture(tmp_path / "a" / f"{number}.png", number)
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
        with Loader(train, 3, 8, Augmentation(), rank=rank, ranks=2, workers=1) as loader:
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


# processes


def test_workers_import_no_mlx():
    with Workers("functools:partial", eval, 1) as workers:
        loaded = "[name for name in __import__('sys').modules if name.split('.')[0] in ('dataset', 'mlx')]"
        (names,) = workers.map([f"bool(__import__('dataset.loader')) and {loaded}"])
    assert "dataset.loader" in names and "mlx" not in names


def test_answers_come_in_order_and_failures_are_errors():
    with Workers("functools:partial", math.sqrt, 3) as workers:
        assert list(workers.map(number * number for number in range(50))) == list(range(50))
        with pytest.raises(RuntimeError, match="ValueError"):
            list(workers.map([-1]))
        workers.processes[1].kill()
        with pytest.raises(MemoryError, match="status -9"):
            list(workers.map([1, 1, 1]))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tree, end):
    """A program without `if __name__ == "__main__"`, killed or interrupted in the middle of an epoch."""
    program = f"""
from dataset import *
loader = Loader(read_folder({str(tree)!r})[0], 4, 8, Augmentation(), workers=2)
batches = loader.epoch()
next(batches)
print(*[process.pid for process in loader.workers.processes], flush=True)
import time
time.sleep(60)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2 and all(alive(pid) for pid in pids)
    parent.send_signal(end)
    parent.communicate(timeout=20)
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid):
    """Whether a process runs; one that has ended and waits for a parent to notice does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")
