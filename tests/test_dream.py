"""dream.py: the algorithm against the notebook's, and the command line as a user meets it."""

import models
from models.dreaming.objectives import Guide
from models.dreaming.targets import parse_targets

import mlx.core as mx
import numpy as np
import pytest
from conftest import noise_image, run, sky_image
from PIL import Image
from seeded import REFERENCES

import dream
from dataset.images import read_image, read_image_and_alpha

TINY = ["--octaves", "2", "--steps", "1", "--layers", "inception3a", "--quiet"]

QUICK = {"layers": ["inception3a"], "octaves": 2, "steps": 2, "jitter": 4}


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((np.float64(a) - b) ** 2))


# --- The algorithm ---


@pytest.mark.parametrize("layer", ["inception3b", "inception4c", "guided"])
def test_agrees_with_the_notebook(net, layer):
    references = np.load(REFERENCES / "dreams.npz")
    guide = references["guide"].astype(np.float32) if layer == "guided" else None
    target = "inception3b" if layer == "guided" else layer
    dreamed = dream.deepdream(net, references["picture"].astype(np.float32), [target], steps=2, jitter=0, guide=guide)
    assert psnr(dreamed, references[layer]) > 50
    assert psnr(references["picture"], references[layer]) < 34  # or the comparison would show nothing


def test_the_same_seed_gives_the_same_dream(net):
    image = np.float32(noise_image(48, 64))
    options = {"layers": ["inception3a"], "octaves": 2, "steps": 2}
    first, again, other = (dream.deepdream(net, image, seed=seed, **options) for seed in (7, 7, 8))
    assert first.dtype == np.float32 and first.shape == image.shape
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_channels_and_weights_matter(net):
    image = np.float32(noise_image(48, 64))
    options = {"octaves": 1, "steps": 1, "jitter": 0}
    dreams = [
        dream.deepdream(net, image, layers, **options)
        for layers in (["conv2"], ["conv2:3"], ["conv2", "conv1"], ["conv2", "conv1=5"])
    ]
    for i, one in enumerate(dreams):
        assert all(np.abs(one - other).max() > 0.1 for other in dreams[:i])


def test_a_flat_picture_stays_finite(net):
    dreamed = dream.deepdream(net, np.zeros((32, 32, 3), np.float32), ["inception4c"], octaves=1, steps=2)
    assert np.isfinite(dreamed).all()


# --- Beyond 2015 ---


def test_a_class_grows(net):
    image = sky_image(64, 64)
    number = 323  # a monarch's among ImageNet's classes
    options = {"classes": ["monarch"], "octaves": 1, "steps": 6, "jitter": 0}
    before, after, against = (
        np.array(net(mx.array(each[None])))[0, number]
        for each in (image, dream.deepdream(net, image, **options), dream.deepdream(net, image, invert=True, **options))
    )
    assert after > before + 0.2 and against < before - 0.2


def test_dead_channels_wake_on_a_flat_sky(net):
    sky = np.full((64, 64, 3), (110, 150, 210), np.float32)
    peaks = np.array(net.activations(sky[None], ["inception4c"])["inception4c"].max(axis=(0, 1, 2)))
    dead = int(np.flatnonzero(peaks <= 0)[3])
    target = [f"inception4c:{dead}"]
    gradient = dream.gradient_function(net, parse_targets(net, target))
    assert not mx.any(gradient(mx.array(sky))).item()  # every ReLU blocks it
    dreamed = dream.deepdream(net, sky, target, octaves=1, steps=8, jitter=0)
    assert np.array(net.activations(dreamed[None], ["inception4c"])["inception4c"][..., dead]).max() > 0


def test_decorrelation_keeps_a_dream_from_one_colour(net):
    image = sky_image()
    plain, decorrelated = (dream.deepdream(net, image, decorrelate=on, **QUICK) for on in (None, True))

    def colour(dreamed):
        change = dreamed - image
        return np.abs(change - change.mean(axis=2, keepdims=True)).mean() / np.abs(change).mean()

    assert colour(decorrelated) < 0.6 * colour(plain)


def test_a_mask_keeps_what_is_black(net):
    image = sky_image()
    mask = np.zeros((24, 32), np.float32)  # of another size than the picture
    mask[:, 16:] = 255
    dreamed = dream.deepdream(net, image, mask=mask, **QUICK)
    change = np.abs(dreamed - image).mean(axis=2)
    assert change[:, :26].max() == 0 and change[:, 40:].mean() > 2
    half = dream.deepdream(net, image, mask=mask / 2, **QUICK | {"steps": 1, "octaves": 1})
    full = dream.deepdream(net, image, mask=mask, **QUICK | {"steps": 1, "octaves": 1})
    assert np.allclose((half - image)[:, 44:], (full - image)[:, 44:] / 2, atol=0.02)


def test_strength_and_colour(net):
    image = sky_image()
    full, half, none = (dream.deepdream(net, image, strength=s, **QUICK) for s in (1, 0.5, 0))
    assert np.allclose(half, (full + image) / 2, atol=1e-3) and np.array_equal(none, image)
    grey = dream.deepdream(net, image, keep_color=True, **QUICK)
    change = (grey - image)[(grey > 0).all(axis=2) & (grey < 255).all(axis=2)]
    assert np.abs(change).mean() > 2 and np.ptp(change, axis=1).max() < 1e-2


def test_a_guide_is_looked_at_once(net, monkeypatch):
    guide = Guide(np.float32(noise_image(32, 40)))
    first = dream.deepdream(net, sky_image(), guide=guide, **QUICK)
    monkeypatch.setattr(guide, "image", None)
    assert np.array_equal(first, dream.deepdream(net, sky_image(), guide=guide, **QUICK))


# --- The command line ---


def test_dreams_with_nothing_but_an_image(photo, tmp_path):
    status, out, _ = run("dream.py", photo, cwd=tmp_path)
    assert (status, out) == (0, "photo_dream.png\n")
    dreamed = read_image(tmp_path / "photo_dream.png")
    assert dreamed.shape == (33, 47, 3)
    assert 5 < np.abs(dreamed - read_image(photo)).mean() < 60


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "no picture given"),
        (["missing.png"], "no such file"),
        (["text.jpg"], "not a picture"),
        (["cut.jpg"], "broken picture"),
        (["pixel.png"], "too few"),
        (["folder"], "no picture in this folder"),
        (["photo.png", "--layers", "inception4z"], "did you mean inception4"),
        (["photo.png", "--layers", "conv2:64"], "no channel 64"),
        (["--layers", "conv2", "photo.png"], "put photo.png before --layers"),
        (["photo.png", "--octaves", "0"], "--octaves"),
        (["photo.png", "--octave-scale", "nan"], "--octave-scale"),
        (["photo.png", "--model", "lenet"], "invalid choice"),
        (["photo.png", "--model", "vgg16"], "convert.py --download vgg16"),
        (["photo.png", "--model", "vgg16", "--weights", str(models.STARTER)], "weights of googlenet"),
        (["photo.png", "--weights", "text.jpg"], "text.jpg"),
        (["photo.png", "-o", "photo.png"], "is an input"),
        (["photo.png", "-o", "dream.txt"], "cannot write .txt"),
        (["photo.png", "--guide", "text.jpg"], "not a picture"),
        (["photo.png", "--wdith", "100"], "--wdith"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(photo, tmp_path, arguments, words):
    (tmp_path / "text.jpg").write_text("I am no picture\n")
    Image.fromarray(noise_image(1, 1)).save(tmp_path / "pixel.png")
    Image.fromarray(noise_image(64, 64)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:1500])
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    status, out, err = run("dream.py", *arguments, "--quiet", cwd=tmp_path)
    assert status in (1, 2) and out == ""
    assert err.startswith("dream.py: error: ") and err.count("\n") == 1
    assert words in err
    assert sorted(tmp_path.rglob("*")) == before


def test_several_pictures_one_of_them_broken(photo, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no")
    Image.fromarray(noise_image(32, 32)).save(tmp_path / "other.jpg")
    status, out, err = run("dream.py", photo, "broken.png", "other.jpg", "-o", "dreams", *TINY, cwd=tmp_path)
    assert status == 1 and "1 of 3" in err
    assert sorted(p.name for p in (tmp_path / "dreams").iterdir()) == ["other_dream.png", "photo_dream.png"]


def test_lists(tmp_path):
    status, out, _ = run("dream.py", "--list-models", cwd=tmp_path)
    assert status == 0 and all(name in out for name in models.REGISTRY)
    status, out, _ = run("dream.py", "--list-layers", cwd=tmp_path)
    assert status == 0 and "inception4c.branch2.0" in out and out.splitlines()[1].split() == ["conv1", "64", "2"]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_kind_of_image(tmp_path, mode):
    path = tmp_path / ("photo.jpg" if mode == "CMYK" else "photo.png")
    if mode == "I;16":
        Image.fromarray(noise_image(32, 40, 1)[:, :, 0].astype(np.uint16) * 257).save(path)
    else:
        Image.fromarray(noise_image(32, 40, 4), "RGBA").convert(mode).save(path)
    image, alpha = read_image_and_alpha(path)
    assert image.shape == (32, 40, 3) and image.dtype == np.float32 and image.max() <= 255
    assert (alpha is not None) == (mode in ("LA", "P", "RGBA"))
    assert run("dream.py", path, "-o", "out.png", *TINY, cwd=tmp_path)[0] == 0
    with Image.open(tmp_path / "out.png") as out:
        assert out.mode == ("RGBA" if alpha is not None else "RGB")
        if alpha is not None:
            assert np.array_equal(np.asarray(out.getchannel("A")), alpha)


@pytest.mark.parametrize("suffix, kind", [("jpg", "JPEG"), ("webp", "WEBP"), ("PNG", "PNG")])
def test_formats_and_sizes(photo, tmp_path, suffix, kind):
    assert run("dream.py", photo, "-o", f"out.{suffix}", "--width", "70", *TINY, cwd=tmp_path)[0] == 0
    with Image.open(tmp_path / f"out.{suffix}") as out:
        assert (out.format, out.size) == (kind, (70, 49))
    assert run("dream.py", photo, "-o", f"out.{suffix}", "--max-size", "42", *TINY, cwd=tmp_path)[0] == 0
    with Image.open(tmp_path / f"out.{suffix}") as out:
        assert out.size == (42, 29)
