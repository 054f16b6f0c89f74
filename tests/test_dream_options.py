"""dream.py beyond 2015: targets, the shape of the gradient, masks, recipes, surveys, many pictures at once."""

import os
import subprocess
import sys

import models
from models.dreaming import gradients, options
from models.dreaming.objectives import Guide
from models.dreaming.options import CLASS_DEFAULTS, OPTIONS, parse_over, recipe_parser, settings
from models.dreaming.presets import PRESETS, preset
from models.dreaming.recipes import command, read_recipe, recipe_arguments, repeated_options, save_options, to_arguments
from models.dreaming.surveys import survey_cells
from models.dreaming.targets import Target, parse_targets

import mlx.core as mx
import numpy as np
import pytest
from conftest import ROOT, noise_image, run
from PIL import Image
from test_dream import TINY

import dream
import dream_video
from dataset.cli import UsageError, UserError
from dataset.color import normalize_matrix
from dataset.images import read_image, write_image
from dataset.plots import contact_sheets

QUICK = {"layers": ["inception3a"], "octaves": 2, "steps": 2, "jitter": 4}


def gradient_image(height=48, width=64):
    """Colours that run slowly, as a sky's do."""
    y, x = np.mgrid[:height, :width] / 64
    return np.dstack([90 + 60 * y, 120 + 40 * x, 190 - 50 * y]).astype(np.float32)


# --- Targets ---


def test_classes_by_name_and_number(net):
    number = net.classes.index("monarch")
    wanted = Target("fc", (number,), linear=True)
    assert parse_targets(net, classes=["Monarch"]) == parse_targets(net, classes=[number]) == [wanted]
    both = parse_targets(net, ["inception3a"], ["monarch=0.5"])
    assert [target.layer for target in both] == ["inception3a", "fc"] and both[1].weight == 0.5
    for wrong, words in (("monrach", "did you mean monarch"), ("200", "0 to 199"), ("monarch=x", "NAME|INDEX")):
        with pytest.raises(UsageError, match=words):
            parse_targets(net, classes=[wrong])


def test_a_class_grows(net):
    image = gradient_image(64, 64)
    number = net.classes.index("monarch")
    options = {"classes": ["monarch"], "octaves": 1, "steps": 6, "jitter": 0}
    before, after, against = (
        np.array(net(mx.array(each[None])))[0, number]
        for each in (image, dream.deepdream(net, image, **options), dream.deepdream(net, image, invert=True, **options))
    )
    assert after > before + 0.2 and against < before - 0.2


def test_the_weights_name_their_layer(net, monkeypatch):
    monkeypatch.setitem(net.metadata, "layer", "inception3b")
    assert parse_targets(net) == [Target("inception3b")]


def test_dead_channels_wake_on_a_flat_sky(net):
    sky = np.full((64, 64, 3), (110, 150, 210), np.float32)
    peaks = np.array(net.activations(sky[None], ["inception4c"])["inception4c"].max(axis=(0, 1, 2)))
    dead = int(np.flatnonzero(peaks <= 0)[3])
    target = [f"inception4c:{dead}"]
    gradient = dream.gradient_function(net, parse_targets(net, target))
    assert not mx.any(gradient(mx.array(sky))).item()  # every ReLU blocks it
    dreamed = dream.deepdream(net, sky, target, octaves=1, steps=8, jitter=0)
    assert np.array(net.activations(dreamed[None], ["inception4c"])["inception4c"][..., dead]).max() > 0


# --- The gradient ---


def noise(*shape):
    return mx.array(np.random.default_rng(1).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("shape", [(32, 48, 3), (31, 45, 3), (5, 3, 3)])
def test_the_pyramid_can_be_put_together_again(shape, monkeypatch):
    monkeypatch.setattr(gradients, "unit_rms", lambda x: x)
    g = noise(*shape)
    assert np.allclose(gradients.laplacian_normalise(g, 4), g, atol=1e-5)


def test_lapnorm_lifts_the_coarse_bands():
    y = mx.arange(64) / 64 * 2 * np.pi
    fine, coarse = mx.cos(16 * y), mx.cos(y) / 50
    g = mx.broadcast_to((fine + coarse)[:, None, None], (64, 64, 3))

    def amplitudes(g):
        spectrum = np.abs(np.fft.rfft(np.array(g)[:, 32, 0]))
        return spectrum[1] / spectrum[16]

    assert amplitudes(gradients.laplacian_normalise(g, 4)) > 20 * amplitudes(g)


def test_smoothing_keeps_the_mean_and_takes_the_grain():
    g = noise(64, 64, 3)
    blurred = np.array(gradients.cascade_gaussian(g, 2.0))
    assert blurred.std() < 0.4 * np.array(g).std()
    flat = np.array(gradients.cascade_gaussian(mx.ones((64, 64, 3)), 2.0))
    assert np.allclose(flat[20:-20, 20:-20], 1, atol=1e-5)


def test_smoothing_widens_with_the_steps():
    shape = gradients.gradient_transform(smooth=0.5)
    g = noise(48, 48, 3)
    assert np.array(shape(g, 9, 10)).std() < 0.8 * np.array(shape(g, 0, 10)).std()


def test_decorrelation_is_a_step_in_decorrelated_colour():
    matrix = normalize_matrix(gradients.IMAGENET_COLORS)
    expected = [[1.0, 0.914, 0.794], [0.914, 1.0, 0.909], [0.794, 0.909, 1.0]]  # lucid's matrix, as correlations
    product = gradients.color_product(gradients.IMAGENET_COLORS)
    scale = np.sqrt(np.diag(product))
    assert np.allclose(product / np.outer(scale, scale), expected, atol=2e-3)
    t = np.random.default_rng(0).normal(size=3)
    g = np.array([0.3, -1.0, 2.0])  # of a linear objective: the change of the pixel by a step in t along its gradient
    assert np.allclose(matrix @ (t + matrix.T @ g) - matrix @ t, product @ g, atol=1e-6)


def test_decorrelation_keeps_a_dream_from_one_colour(net):
    image = gradient_image()
    plain, decorrelated = (dream.deepdream(net, image, decorrelate=on, **QUICK) for on in (None, True))

    def colour(dreamed):
        change = dreamed - image
        return np.abs(change - change.mean(axis=2, keepdims=True)).mean() / np.abs(change).mean()

    assert colour(decorrelated) < 0.6 * colour(plain)


def test_whose_matrix_decorrelates(net, monkeypatch, tmp_path):
    own = [[1.0, 0, 0], [0, 0.5, 0], [0, 0, 0.25]]
    assert gradients.color_matrix(net, None) is None
    assert gradients.color_matrix(net, True) == gradients.IMAGENET_COLORS
    monkeypatch.setitem(net.metadata, "color_matrix", own)
    assert gradients.color_matrix(net, True) == own
    np.savez(tmp_path / "cm.npz", matrix=np.array(own) * 2)
    args = dream.build_parser().parse_args(["x.png", "--decorrelate", str(tmp_path / "cm.npz")])
    assert np.array_equal(settings(args)["decorrelate"], np.array(own) * 2)


# --- Where and how much ---


def test_a_mask_keeps_what_is_black(net):
    image = gradient_image()
    mask = np.zeros((24, 32), np.float32)  # of another size than the picture
    mask[:, 16:] = 255
    dreamed = dream.deepdream(net, image, mask=mask, **QUICK)
    change = np.abs(dreamed - image).mean(axis=2)
    assert change[:, :26].max() == 0 and change[:, 40:].mean() > 2
    half = dream.deepdream(net, image, mask=mask / 2, **QUICK | {"steps": 1, "octaves": 1})
    full = dream.deepdream(net, image, mask=mask, **QUICK | {"steps": 1, "octaves": 1})
    assert np.allclose((half - image)[:, 44:], (full - image)[:, 44:] / 2, atol=0.02)


def test_strength_and_colour(net):
    image = gradient_image()
    full, half, none = (dream.deepdream(net, image, strength=s, **QUICK) for s in (1, 0.5, 0))
    assert np.allclose(half, (full + image) / 2, atol=1e-3) and np.array_equal(none, image)
    grey = dream.deepdream(net, image, keep_color=True, **QUICK)
    change = (grey - image)[(grey > 0).all(axis=2) & (grey < 255).all(axis=2)]
    assert np.abs(change).mean() > 2 and np.ptp(change, axis=1).max() < 1e-2


# --- From nothing ---


def test_noise_becomes_a_picture(tmp_path):
    arguments = ["--noise", "40x32", "--class", "monarch", "--octaves", "1", "--steps", "1", "--quiet"]
    assert run("dream.py", *arguments, cwd=tmp_path)[:2] == (0, "noise_dream.png\n")
    assert read_image(tmp_path / "noise_dream.png").shape == (32, 40, 3)
    for wrong in (["--noise", "40"], ["--noise", "40x0"], ["--noise", "40x32", "photo.png"]):
        assert run("dream.py", *wrong, cwd=tmp_path)[0] == 2


def test_visualisation_climbs_and_repeats_itself(net):
    from models.dreaming.visualize import visualize

    number = net.classes.index("monarch")
    targets = parse_targets(net, classes=[number])
    start, shown, again = (visualize(net, targets, 48, 47, steps=steps, seed=3) for steps in (0, 12, 12))
    assert shown.shape == (48, 47, 3) and np.array_equal(shown, again) and shown.min() >= 0 and shown.max() <= 255
    logits = [np.array(net(mx.array(image[None])))[0, number] for image in (start, shown)]
    assert logits[1] > logits[0] + 2


def test_dead_channels_are_visualised(net):
    from models.dreaming.visualize import visualize

    noise, shown = (visualize(net, parse_targets(net, ["inception4c:13"]), 48, 48, steps=steps) for steps in (0, 10))
    peaks = [
        net.activations(image[None], ["inception4c"])["inception4c"][..., 13].max().item() for image in (noise, shown)
    ]
    assert peaks[0] == 0 and peaks[1] > 0


def test_turning_by_nothing_changes_nothing():
    from models.dreaming.visualize import rotate_scale

    image = noise(20, 30, 3)
    assert np.allclose(rotate_scale(image, 1, 0), image, atol=1e-5)
    quarter = rotate_scale(image[:, :20], 1, np.pi / 2)
    assert np.allclose(quarter, np.rot90(np.array(image[:, :20]), -1), atol=1e-4) or np.allclose(
        quarter, np.rot90(np.array(image[:, :20])), atol=1e-4
    )
    assert rotate_scale(image, 1.1, 0.1).shape == (22, 33, 3)


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


def test_a_guide_is_looked_at_once(net, monkeypatch):
    guide = Guide(np.float32(noise_image(32, 40)))
    first = dream.deepdream(net, gradient_image(), guide=guide, **QUICK)
    monkeypatch.setattr(guide, "image", None)
    assert np.array_equal(first, dream.deepdream(net, gradient_image(), guide=guide, **QUICK))


# --- Surveys ---


def test_a_survey_of_channels_in_pages(photo, tmp_path):
    status, out, _ = run(
        "dream.py", photo.name, "--survey", "inception3a.branch3.0", *TINY[:4], "--quiet", cwd=tmp_path
    )
    lines = out.splitlines()
    assert status == 0 and len(lines) == 17 and lines[-1] == "photo_survey.png"
    assert lines[3].startswith("python dream.py photo.png") and "--layers inception3a.branch3.0:3" in lines[3]
    assert read_image(tmp_path / "photo_survey.png").shape[1] > 1000


def test_what_surveys_show(net):
    names = [label for label, _ in survey_cells(net, "stages")]
    assert names[0] == "conv1" and "inception4c" in names and not any("." in name for name in names)
    assert [label for label, _ in survey_cells(net, "models")] == [n for n in models.REGISTRY if models.installed(n)]
    with pytest.raises(UsageError):
        survey_cells(net, "inception9z")


def test_sheets_have_pages():
    cells = [(f"a rather long name of the cell number {i}", gradient_image()) for i in range(7)]
    sheets = list(contact_sheets(cells, width=40, columns=2, rows=2))
    assert len(sheets) == 2 and sheets[0].shape[1] == 2 * 48 + 8 and sheets[0].std() > 10


# --- Recipes ---


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_picture_carries_its_recipe(suffix, tmp_path):
    path = tmp_path / f"dream.{suffix}"
    recipe = {"version": "1", "options": {"layers": ["inception3a:1=0.5"], "seed": 3}}
    write_image(path, gradient_image(), **save_options(path, recipe))
    assert read_recipe(path) == {"program": "DeepDream-MLX", **recipe}


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


def test_a_class_has_defaults_of_its_own():
    """Which give way to what is told, to a preset and to --visualize; recipes tell what differs from them."""
    name = ["--class", "monarch"]

    def parse(*words, look=None):
        return parse_over(dream.build_parser(), words, look or {})

    def meant(*words, look=None):
        args = parse(*words, look=look)
        return args.steps, args.step_size, args.lapnorm, args.smooth

    of_class = CLASS_DEFAULTS
    assert meant(*name) == tuple(of_class[key] for key in ("steps", "step_size", "lapnorm", "smooth"))
    assert meant(*name, "--lapnorm", "0", "--steps", "3") == (3, of_class["step_size"], 0, of_class["smooth"])
    assert meant() == meant("--layers", "conv2") == (10, 1.5, 0, 0)
    assert meant(*name, "--preset", "subtle", look=preset("subtle", "starter")) == (10, 1.5, 0, 0.5)
    assert meant(*name, "--visualize") == (200, 1.5, 0, 0)
    for words in (name, [*name, "--steps", "10"], [*name, "--lapnorm", "0"], [*name, "--visualize", "--steps", "10"]):
        options = vars(parse(*words))
        again = recipe_arguments(options)
        assert sorted(again) == sorted(words)
        assert vars(parse(*again)) == options
        assert vars(parse_over(dream.build_parser(), [], repeated_options(options))) == options


def test_later_defaults_do_not_change_what_like_repeats(monkeypatch):
    """A recipe holds the value of every option, so also of those that were left at defaults that have changed."""
    made = recipe_options_of("--class", "monarch")
    monkeypatch.setitem(CLASS_DEFAULTS, "steps", 33)
    monkeypatch.setitem(CLASS_DEFAULTS, "decorrelate", True)
    now = parse_over(dream.build_parser(), ["--class", "monarch"])
    assert (now.steps, now.decorrelate) == (33, True)
    again = parse_over(dream.build_parser(), [], repeated_options(made))
    assert (again.steps, again.decorrelate, again.lapnorm) == (20, None, 4)


def recipe_options_of(*words):
    args = parse_over(dream.build_parser(), words)
    return {name: getattr(args, name) for name in OPTIONS}


def test_a_new_option_is_one_line(monkeypatch):
    """It is in both scripts, in recipes, in --like, and an argument of deepdream()."""
    add = options.add_blend_options

    def with_another(parser):
        add(parser)
        parser.add_argument("--glow", type=float, default=0.5)

    monkeypatch.setattr(options, "add_blend_options", with_another)
    table = options.in_order(recipe_parser()._actions)
    assert list(table)[-1] == "glow" and list(table)[:-1] == list(OPTIONS)
    monkeypatch.setattr(options, "OPTIONS", table)
    args = dream.build_parser().parse_args(["--glow", "0.25"])
    assert settings(args)["glow"] == 0.25
    assert dream_video.parse_arguments(["photo.png", "--glow", "0.25"])[0].glow == 0.25


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"program": "DeepDream-MLX"}', "{" * 5000])
def test_pictures_without_a_recipe(text, tmp_path):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("DeepDream-MLX", text)
    Image.fromarray(noise_image(4, 4)).save(tmp_path / "x.png", pnginfo=info)
    with pytest.raises(UserError, match="no recipe"):
        read_recipe(tmp_path / "x.png")


def test_a_hostile_recipe_gives_no_other_options():
    assert to_arguments({"output": "/etc/x", "steps": 3, "like": "y"}, {}) == ["--steps", "3"]
    assert repeated_options({"output": "/etc/x", "steps": 3, "like": "y", "octaves": None}) == {"steps": 3}
    with pytest.raises(UsageError):
        to_arguments({"layers": ["conv1", "--output=x.png"]}, {})
    with pytest.raises(UsageError):
        repeated_options({"steps": "many"})
    assert command("dream.py", ["my photo.png"], ["--steps", "3"]) == "python dream.py 'my photo.png' --steps 3"


# --- Growing, and many ---


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


# --- Presets ---


@pytest.mark.parametrize("model", models.REGISTRY)
def test_presets_name_layers_that_there_are(model):
    net = models.entry(model).build(models.entry(model).num_classes)
    names = vars(dream.build_parser().parse_args([]))
    for name in PRESETS:
        options = preset(name, model)
        assert options.keys() <= names.keys() and all(net.resolve(layer) for layer in options["layers"])


def test_presets_of_the_starter(net):
    for name in PRESETS:
        options = preset(name, "starter")
        assert parse_targets(net, options.get("layers"), options.get("classes")) and len(options) > 2
    with pytest.raises(UsageError, match="did you mean dogslugs"):
        preset("dogslug", "starter")


def test_a_preset_at_the_command_line(photo, tmp_path):
    assert "dogslugs" in run("dream.py", "--list-presets", cwd=tmp_path)[1]
    words = ["--preset", "subtle", "--octaves", "1", "--steps", "1", "--quiet"]
    assert run("dream.py", photo.name, *words, cwd=tmp_path)[0] == 0
    options = read_recipe(tmp_path / "photo_dream.png")["options"]
    assert (options["layers"], options["strength"], options["steps"]) == (["maxpool3"], 0.6, 1)
    assert run("dream.py", photo.name, *words, "--class", "monarch", cwd=tmp_path)[0] == 0
    assert read_recipe(tmp_path / "photo_dream.png")["options"]["layers"] is None
