"""train_dream.py: what comes out, interrupted runs, two processes, odd and broken sets.

The base is the bundled starter network, on pictures of stripes, 32 pixels wide.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import models
from models import weights_file
from models.dreaming.background import Background, find_backgrounds
from models.dreaming.concepts import make_concepts
from models.dreaming.features import image_features
from models.dreaming.targets import parse_targets
from models.kernels import blas
from models.training import concept_export
from models.training.transfer import new_network

import numpy as np
import pytest
from conftest import ROOT
from mlx.utils import tree_flatten
from seeded import draw

import convert
import train_dream
from dataset import plots
from dataset.cli import UsageError, UserError
from dataset.images import read_image, write_image
from dream import deepdream

# two modules of the tower and the classifier learn; small enough for any machine
SMALL = ["--image-size", "32", "--batch-size", "4", "--workers", "1", "--quiet", "--train", "inception5b", "fc"]


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def stripes(folder, counts, size=40):
    """folder/across and folder/down (and more), each with so many pictures."""
    for name, count in counts.items():
        for i in range(count):
            noise = draw(f"{name} {i}", (size, size, 3)) * 40
            wave = 80 * np.sin(np.arange(size) * (0.7 + 0.1 * i))
            image = 127 + noise + (wave[:, None, None] if name == "across" else wave[None, :, None])
            write_image(Path(folder) / name / f"{i}.png", image)
    return str(folder)


def arrays(path):
    return weights_file.read(path)[0]


def train(*options):
    assert train_dream.main([str(option) for option in options]) == 0


def command(*options, launch=()):
    return [*launch, sys.executable, str(ROOT / "train_dream.py"), *map(str, options)]


def run(*options, launch=(), status=0, **others):
    others |= {"env": {**os.environ, "OMP_NUM_THREADS": "1"}}  # two processes' BLAS threads would wait for each other
    done = subprocess.run(
        command(*options, launch=launch), text=True, capture_output=True, timeout=120, check=False, **others
    )
    assert done.returncode == status, done.stderr
    return done


# --- What comes out ---


@pytest.mark.parametrize("cached", [[], ["--cache"]])
def test_a_classifier_learns_alone(cached):
    """In parts of a batch, where there are several cores: its inputs are no images."""
    folder = stripes("set", {"across": 6, "down": 6})
    train(folder, *SMALL[:-3], "--train", "fc", "--epochs", 1, "-o", "out.npz", *cached)
    assert arrays("out.npz")["fc.weight"].shape[0] == 2


def test_weights_file(capsys):
    folder = stripes("slugs", {"across": 6, "down": 6})
    write_image("photo.png", 127 + 100 * draw("photo", (40, 36, 3)))
    preview = ["--preview", "photo.png", "--preview-layers", "inception5b"]
    train(folder, *SMALL, "--epochs", 2, "--aux", "train", "--val", 0.3, "-o", "slugs_mlx.npz", "--lr", 0.003, *preview)

    base, ours = models.load("googlenet"), models.load(weights="slugs_mlx.npz")
    assert ours.classes == ["across", "down"] and ours.metadata.aux
    assert ours.metadata.mean == base.metadata.mean and ours.metadata.std == base.metadata.std
    assert np.linalg.norm(ours.metadata.color_matrix) > 0.1
    assert ours.metadata.extra["training"]["epochs"] == 2 and ours.metadata.source == base.path.name

    before, after = arrays(base.path), arrays("slugs_mlx.npz")
    learning = ("inception5b", "fc", "aux1", "aux2")
    frozen = [path for path in before if path.split(".")[0] not in learning]
    assert len(frozen) > 200
    assert [path for path in frozen if not np.array_equal(before[path], after[path])] == []
    moved = {
        path for path in before if path.startswith("inception5b") and not np.array_equal(before[path], after[path])
    }
    assert moved >= {path for path in before if path.startswith("inception5b") and path.endswith("conv.weight")}
    assert not any("running" in path for path in moved)
    start = dict(tree_flatten(new_network("googlenet", 2, aux=True).parameters()))
    moved = [
        path for path in start if path.startswith(("fc", "aux")) and not path.endswith(("conv.weight", "mean", "var"))
    ]
    assert all(np.abs(np.array(start[path]) - after[path]).max() > 1e-5 for path in moved)

    image = read_image("photo.png")
    dreams = [deepdream(net, image, layers=["inception5b"], octaves=1, steps=2) for net in (base, ours)]
    assert np.abs(dreams[0] - dreams[1]).mean() > 0.05

    run = Path("runs/slugs")
    log = (run / "log.csv").read_text().splitlines()
    assert len(log) == 3 and log[0].startswith("epoch,train_loss")
    assert "slugs" in (run / "command").read_text() or "pytest" in (run / "command").read_text()
    for name in ("curves", "confusion", "preview"):
        assert read_image(run / f"{name}.png").std() > 5
    assert len(list((run / "preview").iterdir())) == 3  # before, and after each epoch
    out = capsys.readouterr().out
    assert "epoch 2/2: loss" in out and out.splitlines()[-1] == "slugs_mlx.npz"

    train(folder, "--eval", "--weights", "slugs_mlx.npz", "--workers", 1)
    out = capsys.readouterr().out
    assert out.startswith("4 pictures: top-1")  # those held out in training


@pytest.mark.parametrize("cache", [False, True])
def test_learns(cache):
    """To tell stripes across from stripes down."""
    folder = stripes("set", {"across": 10, "down": 10})
    extra = ["--cache"] if cache else ["--augment", "flip=0.5"]
    train(folder, *SMALL, *extra, "--epochs", 4, "--val", 0.4, "--lr", 0.001, "-o", "out.npz")
    history = [line.split(",") for line in Path("runs/out/log.csv").read_text().splitlines()]
    row = dict(zip(history[0], history[-1], strict=True))
    assert float(row["val_top1"]) == 1 and float(row["train_loss"]) < 0.5 * float(history[1][1])
    assert len(list(Path("runs/.cache").glob("*.npy"))) == (2 if cache else 0)


# --- Concepts ---


def test_class_means_the_concept_that_is_stored():
    """As of the training images in the trained network, against the base's background; the logit has another name."""
    folder = stripes("set", {"across": 4, "down": 4})
    train(folder, *SMALL, "--epochs", 1, "--val", 0, "-o", "out.npz")
    net = models.load(weights="out.npz")
    assert json.loads(np.load("out.npz")["__metadata__"].tobytes())["format"] == 2
    (target,) = parse_targets(net, classes="Down=0.5")
    (made,) = make_concepts(net, "set/down", quiet=True)
    assert (target.layer, target.weight, target.concept.images) == ("inception5b", 0.5, 4)
    assert target.concept.weights == made.weights and target.concept.name == "down"
    assert target.concept.direction @ made.direction > 0.999 and abs(target.concept.offset - made.offset) < 0.01
    assert parse_targets(net, ["fc:1"])[0].concept is None
    photo = 127 + 100 * draw("photo", (40, 36, 3))
    one, two, logit = (
        deepdream(net, photo, octaves=1, steps=2, **target)
        for target in ({"classes": 1}, {"concepts": "set/down"}, {"layers": "fc:1"})
    )
    assert np.abs(one - two).mean() < 1 < np.abs(one - logit).mean()
    with pytest.raises(UsageError, match="a guide has no part"):
        deepdream(net, photo, classes=1, guide=photo)

    convert.convert("out.npz", "small.npz", dtype="int8", changes={"classes": ["left", "right"]})
    (again,) = parse_targets(models.load(weights="small.npz"), classes="right")
    assert np.array_equal(again.concept.direction, target.concept.direction)
    arrays, metadata = weights_file.read("out.npz")
    weights_file.write("bad.npz", arrays, metadata, extras={"concepts": np.frombuffer(b"[3, {}]", np.uint8)})
    with pytest.raises(UserError, match="bad.npz: the concepts in it cannot be read"):
        parse_targets(models.load(weights="bad.npz"), classes="down")


def test_what_all_classes_have_in_common_is_no_part_of_one():
    """With many classes their mean is what each is told from; with two, ordinary photographs are."""
    background = Background(np.zeros(2), np.zeros((2, 64)), np.ones(2))
    tall, blurred = np.array([[1.0, 0]]), [np.array([0.0, 1])] * 10
    assert concept_export.among(background, blurred[:1]) is background
    means = [concept_export.among(background, blurred[:count]).mean for count in (2, 10)]
    assert np.allclose(means, [[0, 0.25], [0, 0.75]])
    away = [Background(mean, background.factor, background.rest).whiten(tall[0] + blurred[0] - mean) for mean in means]
    assert away[0][1] / away[0][0] > 2 * away[1][1] / away[1][0] > 0


def test_plain_fine_tuning_stores_no_concepts(capsys):
    folder = stripes("set", {"across": 3, "down": 3})
    train(folder, *SMALL, "--epochs", 1, "--val", 0, "-o", "out.npz", "--retain", 0)
    assert json.loads(np.load("out.npz")["__metadata__"].tobytes())["format"] == 1
    assert parse_targets(models.load(weights="out.npz"), classes="down")[0].concept is None


def test_photographs_are_a_background_and_a_class():
    folder = stripes("set", {"across": 4})
    for i in range(3):
        write_image(f"photographs/{i}.png", 127 + 100 * draw(f"photograph {i}", (48, 40, 3)))
    train(folder, *SMALL, "--epochs", 1, "--val", 0, "-o", "out.npz", "--background", "photographs", "--retain", 0)
    net = models.load(weights="out.npz")
    assert net.classes == ["across", "background"]
    across, background = parse_targets(net, classes=["across", "background"])
    assert across.concept.images == 4 and background.concept is None
    found = find_backgrounds(net, ["inception5b"])["inception5b"]
    rows = image_features(net, sorted(map(str, Path("photographs").iterdir())), ["inception5b"])["inception5b"]
    assert np.allclose(found.mean, rows.mean(axis=0), atol=1e-2 * np.abs(rows).max())
    with pytest.raises(UsageError, match="name that folder otherwise"):
        train(stripes("other", {"background": 2, "down": 2}), *SMALL, "--background", "photographs")


# --- Interrupted ---


def test_a_run_of_former_defaults_goes_on(monkeypatch):
    """Begun when there was neither --retain nor --batch-norm, with options that --resume need not repeat."""
    folder = stripes("set", {"across": 4, "down": 4})
    former = ["--optimizer", "sgd", "--retain", 0, "--batch-norm", "batch", "--no-balance", "--augment", "flip=0.25"]
    former += ["--epochs", 2, "--val", 0]
    train(folder, *SMALL, *former, "-o", "whole.npz")
    finish_epoch = train_dream.finish_epoch

    def interrupted(run, scores):
        finish_epoch(run, scores)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(train_dream, "finish_epoch", interrupted)
        train(folder, *SMALL, *former, "-o", "pieces.npz")
    checkpoint = Path("runs/pieces/checkpoint.npz")
    entries = dict(np.load(checkpoint))
    state = json.loads(entries["__state__"].tobytes())
    for name in ("retain", "batch_norm"):
        del state["settings"][name]
    np.savez(checkpoint, **{**entries, "__state__": np.frombuffer(json.dumps(state).encode(), np.uint8)})
    train(folder, "--workers", 1, "--quiet", "-o", "pieces.npz", "--resume")
    whole, pieces = arrays("whole.npz"), arrays("pieces.npz")
    assert [path for path in whole if not np.array_equal(whole[path], pieces[path])] == []


def test_resume_ends_with_the_same_weights():
    """After Ctrl-C in the middle of an epoch and kill -9 at some moment, as undisturbed."""
    folder = stripes("set", {"across": 12, "down": 12})
    options = [folder, *SMALL, "--epochs", 6, "--val", 0.2, "--batch-size", 2]
    run(*options, "-o", "whole.npz")
    output = [*options, "-o", "pieces.npz"]
    for sort, status in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        resume = ["--resume"] if sort == signal.SIGKILL else []
        process = subprocess.Popen(
            command(*output, *resume),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        process.stdout.readline()  # an epoch is over
        time.sleep(0.1)
        process.send_signal(sort)
        assert process.wait(timeout=60) == status
        process.stdout.close()
        if sort == signal.SIGINT:
            state = json.loads(np.load("runs/pieces/checkpoint.npz")["__state__"].tobytes())["state"]
            assert 0 < state["epoch"] < 6
    assert "go on with --resume" in run(*output, status=1).stderr
    assert "another lr: 0.0002, not 0.5" in run(*output, "--resume", "--lr", 0.5, status=2).stderr
    run(*output, "--resume")
    for file in ("{}.npz", "runs/{}/checkpoint.npz"):
        one, two = (np.load(file.format(name)) for name in ("whole", "pieces"))
        assert set(one) == set(two)
        keys = [key for key in one if not key.startswith("__")]
        assert [key for key in keys if not np.array_equal(one[key], two[key])] == []


def test_a_damaged_checkpoint_is_told_in_one_line():
    folder = stripes("set", {"across": 4, "down": 4})
    options = [folder, *SMALL, "--val", 0, "-o", "out.npz"]
    train(*options, "--epochs", 1)
    file = Path("runs/out/checkpoint.npz")
    whole = dict(np.load(file))
    state = json.loads(whole["__state__"].tobytes())
    damages = [
        {"settings": []},
        {"state": {**state["state"], "epoch": "1"}},
        {"state": {**state["state"], "history": [{"epoch": 1}]}},
        {"settings": {**state["settings"], "lr": [1]}},
        {"settings": {**state["settings"], "optimizer": "magic"}},
        {"settings": {**state["settings"], "augmentation": None}},
        {"classes": [1, 2]},
    ]
    texts = [json.dumps(state | damage) for damage in damages] + ["[" * 100_000, "{"]
    for text in texts:
        np.savez(file, **whole | {"__state__": np.frombuffer(text.encode(), np.uint8)})
        with pytest.raises(UserError, match="damaged"):
            train(folder, "--workers", 1, "--quiet", "-o", "out.npz", "--resume")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged"):
        train(folder, "--workers", 1, "--quiet", "-o", "out.npz", "--resume")


def test_a_full_disk_leaves_what_was_there():
    folder = stripes("set", {"across": 4, "down": 4})
    run(folder, *SMALL, "--epochs", 1, "-o", "out.npz")
    before = {path: path.read_bytes() for path in (Path("out.npz"), Path("runs/out/checkpoint.npz"))}
    shutil.rmtree("runs/.cache", ignore_errors=True)

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    done = run(folder, *SMALL, "--epochs", 1, "-o", "out.npz", status=1, preexec_fn=full)
    assert done.stderr.splitlines()[-1].startswith("train_dream.py: error: ")
    assert Path("out.npz").read_bytes() == before[Path("out.npz")]
    assert [path.name for path in Path().rglob(".*") if path.is_file()] == []


def test_a_loss_that_is_no_number_stops():
    folder = stripes("set", {"across": 4, "down": 4})
    with pytest.raises(UserError, match="try a lower --lr"):
        train(folder, *SMALL, "--epochs", 8, "-o", "out.npz", "--lr", 1e30, "--warmup", 0, "--clip", 1e30)
    assert not Path("runs/out/checkpoint.npz").exists()


# --- Several processes ---


def test_processes_of_one_machine_share_its_cores(monkeypatch):
    assert blas.processes_here() == 1
    Path("hosts.json").write_text('[["10.0.0.1:50"], ["10.0.0.2:50", "10.0.1.2:51"], ["10.0.0.1:52"]]')
    monkeypatch.setenv("MLX_HOSTFILE", "hosts.json")
    for rank, count in enumerate((2, 1, 2)):
        monkeypatch.setenv("MLX_RANK", str(rank))
        assert blas.processes_here() == count
    Path("hosts.json").write_text("{}")
    assert blas.processes_here() == 1


def test_two_processes_learn_what_one_does():
    """To rounding: batch norm, dropout, auxiliary classifiers and learning without forgetting included."""
    folder = stripes("set", {"across": 6, "down": 6})
    options = [folder, *SMALL, "--epochs", 2, "--val", 0.2, "--aux", "train", "--batch-size", 8]
    options += ["--optimizer", "sgd", "--lr", 0.001, "--batch-norm", "batch"]  # adam makes much of rounding
    run(*options, "-o", "one.npz")
    launcher = Path(sys.executable).parent / "mlx.launch"
    done = run(*options, "-o", "two.npz", launch=[launcher, "-n", "2", "--backend", "ring"])
    assert done.stdout.count("epoch 1/2") == 1
    start = dict(tree_flatten(new_network("googlenet", 2, aux=True).parameters()))
    base = arrays(models.STARTER)
    one, two = (np.load(f"runs/{name}/checkpoint.npz") for name in ("one", "two"))
    changed = 0
    for path in (key.removeprefix("net ") for key in one if key.startswith("net ")):
        first = base[path] if path in base and base[path].shape == start[path].shape else np.array(start[path])
        a, b = one[f"net {path}"], two[f"net {path}"]
        step = np.abs(a - first).max()
        changed += step > 0
        assert np.abs(a - b).max() <= 2e-3 * step + 1e-7, path
    assert changed > 30


# --- Odd sets ---


def preview_of(folder, *options):
    train(folder, *SMALL, "--val", 0, "--preview", "photo.png", *options)


@pytest.fixture
def quick(monkeypatch):
    """Previews of a photo.png, of dreams that take but a moment."""
    write_image("photo.png", 127 + 100 * draw("photo", (40, 36, 3)))
    for name in ("CLASS_DEFAULTS", "CONCEPT_DEFAULTS"):
        monkeypatch.setattr(train_dream, name, {"steps": 1, "octaves": 1, "lapnorm": 2})


def test_preview_of_classes(quick):
    """A row a class, which differ; what the file dreams of afterwards is what the preview showed."""
    folder = stripes("set", {"across": 3, "down": 3})
    preview_of(folder, "--epochs", 2, "--lr", 0.01, "--preview-class", "Across", "1", "-o", "out.npz")
    pictures = {path.name: read_image(path) for path in Path("runs/out/preview").iterdir()}
    assert set(pictures) == {f"epoch-00{epoch}-{name}.png" for epoch in range(3) for name in ("Across", "1")}
    assert np.abs(pictures["epoch-002-Across.png"] - pictures["epoch-002-1.png"]).mean() > 0.5
    assert np.abs(pictures["epoch-000-1.png"] - pictures["epoch-002-1.png"]).mean() > 0.5
    again = deepdream(
        models.load(weights="out.npz"), read_image("photo.png"), classes="down", **train_dream.CONCEPT_DEFAULTS
    )
    assert np.abs(again - pictures["epoch-002-1.png"]).mean() < 2  # weights of float16
    strip = read_image("runs/out/preview.png")
    assert strip.shape[0] == 24 + 2 * (40 + 4) and strip.shape[1] > 3 * (36 + 4)


def test_preview_says_what_was_untrained(quick, monkeypatch):
    """The classifier in the first column: not one that the base had already, and no layer."""
    shown = []
    monkeypatch.setattr(
        plots, "strip", lambda rows, columns: shown.append((list(rows), columns)) or np.zeros((9, 9, 3))
    )
    folder = stripes("set", {"across": 2, "down": 2})
    preview_of(folder, "--epochs", 1, "--preview-class", "down", "-o", "out.npz")
    preview_of(folder, "--epochs", 1, "--preview-class", "down", "-o", "more.npz", "--weights", "out.npz")
    preview_of(folder, "--epochs", 9, "--preview-layers", "conv1", "-o", "layer.npz")
    assert shown[1] == (["down"], ["untrained", "epoch 1"])
    assert shown[3] == (["down"], ["before", "epoch 1"])
    assert shown[-1][0] == ["conv1"] and shown[-1][1][0] == "before"
    assert len(shown[-1][1]) == train_dream.PREVIEW_COLUMNS and shown[-1][1][-1] == "epoch 9"


def test_one_class():
    with pytest.raises(UserError, match="one class teaches nothing"):
        train(stripes("set", {"across": 4}), *SMALL)


def test_a_batch_of_one():
    options = [stripes("set", {"across": 2, "down": 1}), *SMALL, "--val", 0, "--batch-size", 1, "--batch-norm", "batch"]
    with pytest.raises(UsageError, match="too little for batch norm"):
        train(*options)


def test_three_pictures():
    train(stripes("set", {"across": 2, "down": 1}), *SMALL, "--epochs", 1, "-o", "out.npz")
    assert models.load(weights="out.npz").classes == ["across", "down"]


@pytest.mark.parametrize("cache", [[], ["--cache"]])
def test_a_broken_picture_is_left_out(cache, capsys):
    folder = stripes("set", {"across": 4, "down": 4})
    Path("set/across/1.png").write_bytes(Path("set/across/1.png").read_bytes()[:200])
    Path("set/down/notes.jpg").write_text("no picture")
    with pytest.raises(UserError, match="2 of 9 pictures could not be read"):  # after all of the training
        train(folder, *SMALL, *cache, "--epochs", 2, "--val", 0, "-o", "out.npz")
    err = capsys.readouterr().err
    assert err.count("1.png: broken picture") == 1 and err.count("notes.jpg: not a picture") == 1
    assert models.load(weights="out.npz").metadata.extra["training"]["val_top1"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cache", "--augment", "crop=0.5"], "--cache goes with no augmentation but flip"),
        (["--augment", "blur=3"], "write NAME=NUMBER"),
        (["--train", "inception9z"], "there is no layer 'inception9z'"),
        (["--train", "maxpool3"], "has nothing to learn"),
        (["--freeze-to", "inception3x"], "there is no layer"),
        (["--train", "fc", "--freeze-to", "conv3"], "exclude each other"),
        (["--cache", "--freeze-to", "none"], "nothing is frozen"),
        (["--from-scratch", "--freeze-to", "conv1"], "trains the whole network"),
        (["--eval"], "--eval needs the network"),
        (["--eval", "--weights", "w.npz", "--epochs", 5], "--eval trains nothing: leave out --epochs"),
        (["-o", "dreams.txt"], "must end in .npz"),
        (["-o", "_mlx.npz"], "needs a name"),
        (["--resume"], "no run to resume"),
        (["--preview", "nothing.png"], "no such file"),
        (["--preview-layers", "fc:9", "--preview", "set/down/0.png"], "no channel 9"),
        (["--preview-class", "acros", "--preview", "set/down/0.png"], "no class 'acros' .* did you mean across?"),
        (["--preview-class", "down", "--preview-layers", "fc", "--preview", "set/down/0.png"], "exclude each other"),
        (["--preview-class", "down"], "need a picture to dream on"),
        (["--from-scratch", "--retain", 1], "nothing to retain"),
        (["--background", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_errors(options, message):
    folder = stripes("set", {"across": 1, "down": 1})
    with pytest.raises((UsageError, UserError), match=message):
        train(folder, "--workers", 1, "--image-size", 32, *options)
    assert not Path("runs").exists()


def test_the_name_of_a_published_network_is_not_taken():
    with pytest.raises(UsageError, match="that of a published network"):
        train(stripes("googlenet", {"across": 1, "down": 1}))
