"""The command line of dream.py beyond 2015: noise, surveys, recipes, presets, many images at once."""

import os
import subprocess
import sys

import models
from models.dreaming.recipes import read_recipe

import numpy as np
import pytest
from conftest import ROOT, noise_image, run
from PIL import Image

import dream
from dataset.cli import UsageError
from dataset.images import read_image

TINY = ["--octaves", "2", "--steps", "1", "--layers", "inception3a", "--quiet"]


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["--visualize"], "say of what"),
        (["--visualize", "--class", "snail", "--mask", "m.png"], "no use for --mask"),
        (["--visualize", "--class", "snail", "--preset", "subtle"], "no use for --preset"),
        (["--noise", "40x32", "--width", "50"], "no use for --width"),
        (["x.png", "--survey", "--class", "snail"], "no use for --class"),
        (["x.png", "--survey", "--save-every", "2"], "no use for --save-every"),
        (["x.png", "--growth", "gif"], "needs --save-every"),
        (["--decorrelate", "photo.png"], "put photo.png before --decorrelate"),
    ],
)
def test_options_without_effect_are_refused(photo, monkeypatch, words, complaint):
    monkeypatch.chdir(photo.parent)
    with pytest.raises(UsageError, match=complaint):
        dream.main([*words, "--quiet"])


def test_noise_becomes_a_picture(tmp_path):
    arguments = ["--noise", "40x32", "--class", "monarch", "--octaves", "1", "--steps", "1", "--quiet"]
    assert run("dream.py", *arguments, cwd=tmp_path)[:2] == (0, "noise_dream.png\n")
    assert read_image(tmp_path / "noise_dream.png").shape == (32, 40, 3)
    for wrong in (["--noise", "40"], ["--noise", "40x0"], ["--noise", "40x32", "photo.png"]):
        assert run("dream.py", *wrong, cwd=tmp_path)[0] == 2


def test_what_was_made_is_shown(photo, monkeypatch):
    monkeypatch.chdir(photo.parent)
    shown = []
    monkeypatch.setattr(dream, "show", lambda paths, quiet: shown.append([str(path) for path in paths]))
    for words in (TINY, [*TINY, "--show"], [*TINY[:4], "--quiet", "--survey", "classes:volcano", "--show"]):
        dream.main(["photo.png", *words])
    assert shown == [["photo_dream.png"], ["photo_survey.html"]]


def test_a_survey_of_channels_in_sheets(photo, tmp_path):
    status, out, _ = run(
        *("dream.py", photo.name, "--survey", "inception3a.branch3.0", *TINY[:4], "--quiet", "-o", "sheet.png"),
        cwd=tmp_path,
    )
    lines = out.splitlines()
    assert status == 0 and len(lines) == 17 and lines[-1] == "sheet.png"
    assert lines[3].startswith("python dream.py photo.png") and "--layers inception3a.branch3.0:3" in lines[3]
    assert read_image(tmp_path / "sheet.png").shape[1] > 1000


def test_a_recipe_is_repeated_and_overridden(photo, tmp_path):
    made = [*TINY, "--seed", "5", "--lapnorm", "2", "--no-keep-color"]
    assert run("dream.py", photo.name, *made, "-o", "one.png", cwd=tmp_path)[0] == 0
    recipe = read_recipe(tmp_path / "one.png")
    assert recipe["model"] == "googlenet" and recipe["weights"] == models.STARTER.name
    assert len(recipe["weights_sha256"]) == 64 and recipe["version"] == models.__version__
    status, out, _ = run("dream.py", "--recipe", "one.png", cwd=tmp_path)
    assert out.startswith("python dream.py photo.png --model googlenet") and "--seed 5" in out
    assert run("dream.py", photo.name, "--like", "one.png", "-o", "two.png", "--quiet", cwd=tmp_path)[0] == 0
    assert np.array_equal(read_image(tmp_path / "one.png"), read_image(tmp_path / "two.png"))
    other = ["--like", "one.png", "--seed", "6", "--class", "monarch", "--quiet", "-o", "three.png"]
    assert run("dream.py", photo.name, *other, cwd=tmp_path)[0] == 0
    options = read_recipe(tmp_path / "three.png")["options"]
    assert (options["seed"], options["lapnorm"], options["layers"], options["classes"]) == (6, 2, None, ["monarch"])


def test_growth(photo, tmp_path):
    options = [*TINY[:2], "--steps", "2", *TINY[4:], "--save-every", "2"]
    assert run("dream.py", photo.name, *options, cwd=tmp_path)[0] == 0
    frames = sorted((tmp_path / "photo_dream.frames").iterdir())
    assert [frame.name for frame in frames] == ["0002.png", "0004.png"]
    assert all(read_image(frame).shape == (33, 47, 3) for frame in frames)
    assert np.array_equal(read_image(frames[-1]), read_image(tmp_path / "photo_dream.png"))
    for kind in ("gif", "webp"):
        assert run("dream.py", photo.name, *options, "--growth", kind, cwd=tmp_path)[0] == 0
        with Image.open(tmp_path / f"photo_dream_growth.{kind}") as animation:
            assert animation.n_frames == 3 and animation.size == (47, 33)


def test_folders_patterns_and_resume(photo, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("in/a.png", "in/deep/a.png"):
        Image.fromarray(noise_image(32, 32)).save(tmp_path / name)
    (tmp_path / "in" / "b.png").write_bytes(b"no picture")
    Image.fromarray(noise_image(2, 2)).save(tmp_path / "in" / "c.png")  # too small
    status, out, err = run("dream.py", "in", "photo*.png", "-o", "out", *TINY, cwd=tmp_path)
    assert status == 1 and "2 of 5" in err
    made = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png"))
    assert made == ["a_dream.png", os.path.join("deep", "a_dream.png"), "photo_dream.png"]
    (tmp_path / "out" / "a_dream.png").unlink()
    status, out, _ = run("dream.py", "in", "photo*.png", "-o", "out", "--resume", *TINY, cwd=tmp_path)
    assert status == 1 and out.split() == [os.path.join("out", "a_dream.png")]
    assert run("dream.py", "nothing*.png", *TINY, cwd=tmp_path)[0] == 1


def test_dreams_kept_in_the_folder_are_not_dreamed_on(photo, tmp_path):
    for _ in range(2):
        status, out, _ = run("dream.py", ".", "-o", "dreams", *TINY, cwd=tmp_path)
        assert (status, out.split()) == (0, [os.path.join("dreams", "photo_dream.png")])


def test_ranks_share_the_pictures(tmp_path):
    for i in range(3):
        Image.fromarray(noise_image(32, 32)).save(tmp_path / f"{i}.png")
    launch = os.path.join(os.path.dirname(sys.executable), "mlx.launch")
    words = [launch, "-n", "2", "--backend", "ring", sys.executable, str(ROOT / "dream.py")]
    done = subprocess.run(
        [*words, "0.png", "1.png", "2.png", "-o", "out", *TINY],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert sorted(done.stdout.split()) == [f"out/{i}_dream.png" for i in range(3)], done.stderr
    assert done.returncode == 0


def test_a_preset_at_the_command_line(photo, tmp_path):
    assert "dogslugs" in run("dream.py", "--list-presets", cwd=tmp_path)[1]
    words = ["--preset", "subtle", "--octaves", "1", "--steps", "1", "--quiet"]
    assert run("dream.py", photo.name, *words, cwd=tmp_path)[0] == 0
    options = read_recipe(tmp_path / "photo_dream.png")["options"]
    assert (options["layers"], options["strength"], options["steps"]) == (["inception4c"], 0.8, 1)
    assert run("dream.py", photo.name, *words, "--class", "monarch", cwd=tmp_path)[0] == 0
    assert read_recipe(tmp_path / "photo_dream.png")["options"]["layers"] is None
