"""dataset/folder.py: classes and images are found, nested, linked and split, and nothing else."""

import os
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from conftest import ROOT, run, write_photo
from PIL import Image

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


def test_thumbnails_and_bins_of_network_disks_are_left_out(tmp_path):
    save_noise(tmp_path / "leaf" / "0.png")
    junk = ("@eaDir", "#recycle", "#snapshot", "lost+found", "$RECYCLE.BIN", "System Volume Information", "@Recycle")
    for name in junk:
        save_noise(tmp_path / name / "0.png")
        save_noise(tmp_path / "leaf" / name / "0.jpg" / "SYNOPHOTO_THUMB_M.jpg")
    train, _ = read_folder(tmp_path)
    assert train.classes == ("leaf",) and len(train) == 1
    assert len(find_images(tmp_path)) == 1


def test_images_are_found_whatever_they_are_called(tmp_path):
    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "a").mkdir()
    for name in ("1.jfif", "2.JPE", "3.jfi", "4", "5.jpg_1", "6.thumb.data"):
        image.save(tmp_path / "a" / name, format="JPEG")
    image.save(tmp_path / "a" / "7.avif")
    for name in ("photo.jpg~", "photo.jpg.bak", "photo.jpg.crdownload"):
        image.save(tmp_path / "a" / name, format="JPEG")
    (tmp_path / "a" / "8.mp4").write_bytes(b"\0\0\0\x20ftypisom")
    (tmp_path / "a" / "9.txt").write_text("BMs are no bitmaps"[2:])
    names = [os.path.basename(path) for path in find_images(tmp_path)]
    assert names == ["1.jfif", "2.JPE", "3.jfi", "4", "5.jpg_1", "6.thumb.data", "7.avif"]
    assert len(read_folder(tmp_path)[0]) == 7


def test_one_name_composed_and_decomposed_is_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "k\u00e4fer") for form in ("NFC", "NFD"))
    save_noise(tmp_path / "split" / "train" / composed / "0.png")
    save_noise(tmp_path / "split" / "val" / decomposed / "1.png")
    train, val = read_folder(tmp_path / "split")
    assert train.classes == val.classes == (composed,) and len(train) == len(val) == 1
    save_noise(tmp_path / "two" / composed / "0.png")
    save_noise(tmp_path / "two" / decomposed / "1.png")
    if len(list((tmp_path / "two").iterdir())) == 2:  # some file systems have made one folder of them
        with pytest.raises(UserError, match="NFC and NFD"):
            read_folder(tmp_path / "two")


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are UTF-8")
def test_names_that_are_no_utf8_are_names_like_others(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    for number in b"123":
        os.link(tmp_path / "x.png", folder + b"/\xff" + bytes([number]) + b".png")
    train, val = read_folder(tmp_path, val=0.3)
    assert train.classes == ("caf\u00e9",) and train.counts.tolist() == [2] and len(val) == 1
    assert all(os.path.exists(path) for path in train.paths)


def test_names_read_alike_in_every_locale(tmp_path):
    """Where the locale is plain ASCII, too: classes, what is held out, and the folders that prepare.py makes."""
    for seed, name in enumerate(("bl\u00e5b\u00e6r", "\U0001f40c", "ants")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(6):
            write_photo(tmp_path / "set" / name / f"{i}.png", seed=10 * seed + i)
    code = """
import sys
from dataset import read_folder
train, val = read_folder(sys.argv[1], val=0.3)
print(ascii(train.classes), [path.split("/")[-1] for path in val.paths])
"""
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, str(tmp_path / "set")]
    said = [subprocess.check_output(command, cwd=ROOT, env=env) for env in ({**os.environ, "PYTHONUTF8": "1"}, plain)]
    assert said[0] == said[1] and rb"\U0001f40c" in said[0]
    done = run("dataset/prepare.py", "set", "-o", "out", "--min-size", "32", cwd=tmp_path, env=plain)
    assert done.status == 0, done.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == sorted(
        os.listdir(tmp_path / "set")
    )
