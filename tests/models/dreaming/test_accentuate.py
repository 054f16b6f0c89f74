"""Feature accentuation: what a network looks for, drawn into a photograph."""

import json

from models.dreaming.accentuate import accentuate, encode, frequency_damping, random_crop
from models.dreaming.gradients import color_matrix
from models.dreaming.objectives import objective_function
from models.dreaming.targets import parse_targets

import mlx.core as mx
import numpy as np
from conftest import run, sky_image

from dataset.color import normalize_matrix
from dataset.images import read_image, read_text, resize_image, write_image


def test_accentuation_draws_into_the_photograph_and_repeats_itself(net):
    targets, photo = parse_targets(net, ["inception3b"]), sky_image(60, 81)
    start, drawn, again = (accentuate(net, targets, photo, steps=steps, seed=3) for steps in (0, 6, 6))
    assert np.allclose(start, photo, atol=0.1)
    assert drawn.shape == photo.shape and np.array_equal(drawn, again)
    objective = objective_function(net, targets)
    before, after = (objective(mx.array(resize_image(image, (224, 224)))).item() for image in (start, drawn))
    assert after > 1.5 * before


def test_dead_channels_are_accentuated(net):
    targets, photo = parse_targets(net, ["inception4c:6"]), np.full((64, 64, 3), 120, np.float32)
    assert np.abs(accentuate(net, targets, photo, steps=2) - photo).mean() > 1


def test_a_spectrum_is_the_image_and_coarse_shapes_move_first(net):
    photo = sky_image(31, 44)
    matrix = normalize_matrix(color_matrix(net))
    spectrum = encode(photo, matrix)
    pixels = np.fft.irfft2(spectrum[0] + 1j * spectrum[1], s=photo.shape[:2], axes=(0, 1)) @ matrix.T
    assert np.allclose(255 / (1 + np.exp(-pixels)), photo, atol=0.05)
    damping = frequency_damping(31, 44)[..., 0]
    assert damping[0, 0] == 1 and np.all(np.diff(damping[0, 1:]) < 0)


def test_a_crop_of_what_runs_evenly_is_a_stretch_of_it():
    ramp = mx.array(np.broadcast_to(1000 * np.arange(90, dtype=np.float32)[None, :, None], (50, 90, 3)))
    seen = np.array(random_crop(np.random.default_rng(0), 50, 90)(ramp)).mean(axis=(0, 2))
    assert seen.shape == (224,) and np.corrcoef(seen, np.arange(224))[0, 1] > 0.999
    assert 0.55 * 50 < (seen[-1] - seen[0]) / 1000 < 50 and seen.min() > -100


def test_visualize_takes_a_picture(tmp_path):
    """Its command is in it; made from noise and repeated for a picture, it is drawn into that."""
    write_image(tmp_path / "photo.png", sky_image())
    words = ["--visualize", "--class", "monarch", "--quiet"]
    assert run("dream.py", "photo.png", *words, "--steps", "2", "-o", "one.png", cwd=tmp_path).status == 0
    assert read_image(tmp_path / "one.png").shape == (48, 64, 3)
    printed = run("dream.py", "--recipe", "one.png", cwd=tmp_path).out
    assert "photo.png" in printed and "--visualize" in printed and "--steps 2" in printed and "--noise" not in printed
    assert run("dream.py", *words, "--noise", "40x40", "--steps", "2", "-o", "two.png", cwd=tmp_path).status == 0
    like = ["--like", "two.png", "--quiet", "-o", "three.png"]
    assert run("dream.py", "photo.png", *like, cwd=tmp_path).status == 0
    assert read_image(tmp_path / "three.png").shape == (48, 64, 3)
    options = json.loads(read_text(tmp_path / "three.png"))["options"]
    assert options["visualize"] and options["noise"] is None and options["steps"] == 2
