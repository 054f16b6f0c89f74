"""dream.py: the algorithm against the notebook's, and the command line as a user meets it."""

import models
from models.dreaming.targets import Target, parse_targets
from models.dreaming.tiles import in_tiles, tile_edges

import mlx.core as mx
import numpy as np
import pytest
from conftest import noise_image, run
from PIL import Image
from seeded import REFERENCES

import dream
from dataset.cli import UsageError, UserError
from dataset.images import read_image, read_image_and_alpha

TINY = ["--octaves", "2", "--steps", "1", "--layers", "inception3a", "--quiet"]


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((np.float64(a) - b) ** 2))


# --- The algorithm ---


@pytest.mark.parametrize("layer", ["inception3b", "inception4c", "guided"])
def test_agrees_with_the_notebook(net, layer):
    references = np.load(REFERENCES / "dreams.npz")
    guide = references["guide"].astype(np.float32) if layer == "guided" else None
    target = "inception3b" if layer == "guided" else layer
    dreamed = dream.deepdream(net, references["picture"].astype(np.float32), [target], steps=3, jitter=0, guide=guide)
    assert psnr(dreamed, references[layer]) > 50
    assert psnr(references["picture"], references[layer]) < 32  # or the comparison would show nothing


def test_the_same_seed_gives_the_same_dream(net):
    image = np.float32(noise_image(48, 64))
    options = {"layers": ["inception3a"], "octaves": 2, "steps": 2}
    first, again, other = (dream.deepdream(net, image, seed=seed, **options) for seed in (7, 7, 8))
    assert first.dtype == np.float32 and first.shape == image.shape
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_targets(net):
    target = parse_targets(net, ["inception_4c/5x5_reduce:3,5=0.5"])[0]
    assert target == Target("inception4c.branch3.0", (3, 5), 0.5)
    for wrong in ("inception4c:x", "inception4c:512", "inception4c=much", "inception9z", "inception4c:-1"):
        with pytest.raises(UsageError):
            parse_targets(net, [wrong])


def test_channels_and_weights_matter(net):
    image = np.float32(noise_image(48, 64))
    options = {"octaves": 1, "steps": 1, "jitter": 0}
    dreams = [
        dream.deepdream(net, image, layers, **options)
        for layers in (["conv2"], ["conv2:3"], ["conv2", "conv1"], ["conv2", "conv1=5"])
    ]
    for i, one in enumerate(dreams):
        assert all(np.abs(one - other).max() > 0.1 for other in dreams[:i])


def test_octaves_that_are_too_small_are_left_out(net):
    targets = parse_targets(net, ["inception4c"])
    assert dream.octave_sizes(net, (40, 56, 3), targets, 4, 1.4) == [(40, 56), (29, 40), (21, 29)]
    with pytest.raises(UserError, match="too few"):
        dream.octave_sizes(net, (1, 1, 3), targets, 4, 1.4)


def test_a_flat_picture_stays_finite(net):
    dreamed = dream.deepdream(net, np.zeros((32, 32, 3), np.float32), ["inception4c"], octaves=1, steps=2)
    assert np.isfinite(dreamed).all()


def test_tiles_have_the_gradient_of_the_whole(net):
    image = mx.array(np.float32(noise_image(300, 420)))
    gradient = dream.gradient_function(net, parse_targets(net, ["inception3a"]))
    whole = gradient(image)
    tiled = in_tiles(gradient, 200, np.random.default_rng(0))(image)
    assert tiled.shape == whole.shape
    assert mx.abs(tiled - whole).max() < 0.02 * mx.abs(whole).max()
    assert mx.abs(tiled - whole).mean() < 0.02 * mx.abs(whole).mean()  # cells at the rim are counted whole


@pytest.mark.parametrize("side, tile", [(100, 100), (101, 100), (1000, 64), (257, 256)])
def test_cuts_cover_a_side_and_move(side, tile):
    rng = np.random.default_rng(0)
    grids = [tile_edges(side, tile, rng) for _ in range(8)]
    for grid in grids:
        assert grid[0][0] == 0 and grid[-1][1] == side
        assert all(end == start for (_, end), (start, _) in zip(grid, grid[1:], strict=False))
        assert all(0 < end - start <= tile for start, end in grid)
    assert side <= tile or len(set(map(tuple, grids))) > 1


# --- The command line ---


def test_dreams_with_nothing_but_a_noise_image(photo, tmp_path):
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
def test_every_kind_of_noise_image(tmp_path, mode):
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


def test_sixteen_bits_are_scaled(tmp_path):
    levels = np.linspace(0, 65535, 32 * 40).reshape(32, 40).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert np.allclose(read_image(tmp_path / "deep.png")[:, :, 0], levels / 257, atol=0.01)


def test_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned by 90 degrees
    Image.fromarray(noise_image(30, 50)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (50, 30, 3)


@pytest.mark.parametrize("suffix, kind", [("jpg", "JPEG"), ("webp", "WEBP"), ("PNG", "PNG")])
def test_formats_and_sizes(photo, tmp_path, suffix, kind):
    assert run("dream.py", photo, "-o", f"out.{suffix}", "--width", "70", *TINY, cwd=tmp_path)[0] == 0
    with Image.open(tmp_path / f"out.{suffix}") as out:
        assert (out.format, out.size) == (kind, (70, 49))
    assert run("dream.py", photo, "-o", f"out.{suffix}", "--max-size", "42", *TINY, cwd=tmp_path)[0] == 0
    with Image.open(tmp_path / f"out.{suffix}") as out:
        assert out.size == (42, 29)
