"""dataset/folder.py: classes and images are found, nested, linked and split, and nothing else."""

import os

import numpy as np
import pytest

from dataset import find_images, read_folder
from dataset.cli import UserError
from dataset.images import write_image


def save_noise(path, seed=0, height=20, width=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.random.default_rng(seed).uniform(0, 255, (height, width, 3)))


def test_classes_are_sorted_nested_folders_belong_and_the_rest_does_not(tmp_path):
    save_noise(tmp_path / "wasp" / "a.png")
    save_noise(tmp_path / "ant" / "deep" / "er" / "b.JPG")
    save_noise(tmp_path / "ant" / ".hidden" / "c.png")
    save_noise(tmp_path / "stray.png")
    (tmp_path / "ant" / "notes.txt").write_text("no picture")
    train, val = read_folder(tmp_path)
    assert train.classes == val.classes == ("ant", "wasp")
    assert [os.path.relpath(path, tmp_path) for path in train.paths] == ["ant/deep/er/b.JPG", "wasp/a.png"]
    assert train.labels.tolist() == [0, 1] and train.counts.tolist() == [1, 1]
    assert len(val) == 0
    assert len(find_images(tmp_path)) == 3  # the stray one too: no classes are asked for


def test_symbolic_links_count_once_and_loops_end(tmp_path):
    save_noise(tmp_path / "set" / "b" / "real.png")
    save_noise(tmp_path / "elsewhere" / "far.png")
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
    save_noise(tree / "aphid" / "1.png")
    train, more = read_folder(tree, val=0.25, seed=1)
    assert more.paths == val.paths  # a new class changes no other, and its only picture stays in training
    assert train.counts.tolist() == [9, 1, 4]


def test_train_and_val_are_taken_as_found(tmp_path):
    for name in ("train/a/1", "train/a/2", "train/b/3", "val/b/4", "test/c/5"):
        save_noise(tmp_path / f"{name}.png")
    train, val = read_folder(tmp_path, val=0.5)
    assert train.classes == ("a", "b") and train.counts.tolist() == [2, 1] and val.counts.tolist() == [0, 1]
    save_noise(tmp_path / "val" / "d" / "6.png")
    with pytest.raises(UserError, match="val: class d is not in"):
        read_folder(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    save_noise(tmp_path / "train" / "1.png")
    save_noise(tmp_path / "bus" / "2.png")
    assert read_folder(tmp_path)[0].classes == ("bus", "train")


def test_folders_without_pictures_are_explained(tmp_path, capsys):
    with pytest.raises(UserError, match="no such folder"):
        read_folder(tmp_path / "none")
    save_noise(tmp_path / "flat" / "1.png")
    with pytest.raises(UserError, match="put them in"):
        read_folder(tmp_path / "flat")
    (tmp_path / "empty").mkdir()
    read_folder(tmp_path)
    assert "empty: no pictures; the class is left out" in capsys.readouterr().err
