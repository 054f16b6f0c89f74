"""train_dream.py: what learns and what does not, gradients, interrupted runs, two processes, odd and broken sets.

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
from models.kernels import blas
from models.training import batches, freezing
from models.training import step as learning

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from conftest import ROOT
from mlx.utils import tree_flatten, tree_unflatten
from seeded import CLASSES, REFERENCES, TRAINING, Case, digest, draw, picture, weights

import train_dream
from dataset import Augmentation, plots, read_folder
from dataset.cli import UsageError, UserError
from dataset.features import FeatureLoader, compute_features
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


def test_weights_file(capsys):
    folder = stripes("slugs", {"across": 6, "down": 6})
    write_image("photo.png", 127 + 100 * draw("photo", (40, 36, 3)))
    train(folder, *SMALL, "--epochs", 2, "--aux", "train", "--val", 0.3, "-o", "slugs_mlx.npz", "--lr", 0.01,
          "--preview", "photo.png", "--preview-layers", "inception5b")  # fmt: skip

    base, ours = models.load("googlenet"), models.load(weights="slugs_mlx.npz")
    assert ours.classes == ["across", "down"] and ours.metadata["aux"]
    assert ours.metadata["mean"] == base.metadata["mean"] and ours.metadata["std"] == base.metadata["std"]
    assert np.linalg.norm(ours.metadata["color_matrix"]) > 0.1
    assert ours.metadata["training"]["epochs"] == 2 and ours.metadata["source"] == base.path.name

    before, after = arrays(base.path), arrays("slugs_mlx.npz")
    learning = ("inception5b", "fc", "aux1", "aux2")
    frozen = [path for path in before if path.split(".")[0] not in learning]
    assert len(frozen) > 200
    assert [path for path in frozen if not np.array_equal(before[path], after[path])] == []
    learned = [path for path in before if path.startswith("inception5b") and path.endswith(("conv.weight", "mean"))]
    assert [path for path in learned if np.array_equal(before[path], after[path])] == []
    start = dict(tree_flatten(freezing.new_network("googlenet", 2, aux=True).parameters()))
    moved = [path for path in start if path.startswith(("fc", "aux")) and not path.endswith("conv.weight")]
    assert all(np.abs(np.array(start[path]) - after[path]).max() > 1e-5 for path in moved)

    image = read_image("photo.png")
    dreams = [deepdream(net, image, layers=["inception5b"], octaves=1, steps=2) for net in (base, ours)]
    assert np.abs(dreams[0] - dreams[1]).mean() > 0.5

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
    train(folder, *SMALL, *extra, "--epochs", 4, "--val", 0.4, "--lr", 0.01, "-o", "out.npz")
    history = [line.split(",") for line in Path("runs/out/log.csv").read_text().splitlines()]
    row = dict(zip(history[0], history[-1], strict=True))
    assert float(row["val_top1"]) == 1 and float(row["train_loss"]) < 0.5 * float(history[1][1])
    assert len(list(Path("runs/.cache").glob("*.npy"))) == (2 if cache else 0)


# --- What is frozen, and where the network goes on ---


@pytest.mark.parametrize("name", ["googlenet", "googlenet_bvlc", "inception_v3", "resnet50", "alexnet"])
def test_a_network_goes_on_from_a_layer(name):
    net = freezing.new_network(name, 3, aux=models.entry(name).aux)
    size = 75 if name in ("alexnet", "inception_v3") else 40
    whole = dict(net.stages(mx.array(draw("x", (1, size, size, 3)))))
    cut = net.split_points[len(net.split_points) // 2]
    rest = dict(net.stages(whole[cut], after=cut))
    assert list(rest) == list(whole)[list(whole).index(cut) + 1 :]
    last = list(whole)[-1]
    assert np.allclose(whole[last], rest[last], atol=1e-5)


def test_freezing_goes_by_module():
    net = freezing.new_network("vgg16", 3)
    frozen = set(freezing.paths_of(net)) - set(freezing.learned_paths(net, "features.2"))
    assert {path.rpartition(".")[0] for path in frozen} == {"features.0", "features.2"}  # and not features.21, .24 ...
    learned = freezing.learned_paths(net, train=["conv1_1", "fc8"])
    assert {path.rpartition(".")[0] for path in learned} == {"features.0", "classifier.6"}
    net = freezing.new_network("resnet50", 3)
    learned = freezing.learned_paths(net, "layer2")
    assert {path.split(".")[0] for path in learned} == {"layer3", "layer4", "fc"}
    assert freezing.split_layer(net, learned) == "layer2.3"
    frozen = freezing.freeze(net, learned)
    freezing.training_mode(net, frozen)
    assert not net.bn1.training and not net.layer2[0].bn1.training and net.layer3[0].bn1.training


def test_where_the_frozen_part_ends():
    net = freezing.new_network("googlenet", 3, aux=True)
    for options, cut in (
        ({"freeze_to": "inception3b"}, "maxpool3"),
        ({"freeze_to": "inception4d"}, "inception4a"),  # the first auxiliary classifier, which learns, comes next
        ({"train": ["inception3a"]}, "maxpool2"),
        ({}, None),
    ):
        assert freezing.split_layer(net, freezing.learned_paths(net, **options)) == cut
    net = freezing.new_network("googlenet", 3)
    assert freezing.split_layer(net, freezing.learned_paths(net, train=["fc"])) == "avgpool"
    assert freezing.split_layer(net, freezing.learned_paths(net, train=["inception4c", "inception5b"])) == "inception4b"


def test_batch_norm_is_that_of_mlx():
    x, weight, bias = (
        mx.array(3 + 2 * draw("x", (4, 5, 6, 7))),
        mx.array(1 + draw("w", (7,))),
        mx.array(draw("b", (7,))),
    )
    results = []
    for norm in (nn.BatchNorm(7), batches.BatchNorm(7)):

        def loss(x, weight, bias, norm=norm):
            norm.weight, norm.bias = weight, bias
            return (mx.sin(norm(x)) * draw("k", (4, 5, 6, 7))).sum()

        results.append([*mx.grad(loss, argnums=(0, 1, 2))(x, weight, bias), norm.running_mean, norm.running_var])
    for theirs, ours in zip(*results, strict=True):
        assert np.allclose(theirs, ours, rtol=1e-3, atol=1e-5)


def test_learning_rates():
    cosine = [learning.rate_factor(step, 10, 2, "cosine") for step in range(10)]
    assert cosine[:3] == pytest.approx([1 / 3, 2 / 3, 1]) and cosine[6] == pytest.approx(0.5) and 0 < cosine[9] < 0.05
    assert [learning.rate_factor(step, 9, 0, "step") for step in (0, 3, 8)] == pytest.approx([1, 0.1, 0.01])
    assert learning.rate_factor(7, 9) == 1
    assert np.array(learning.class_weights(np.array([1, 3]), True)).tolist() == pytest.approx([2, 2 / 3])


def test_features_are_computed_once():
    folder, _ = read_folder(stripes("set", {"across": 2, "down": 3}))
    calls = []

    def network(images):
        calls.append(len(images))
        return images[:, :2, ::32, :]  # not the same in the mirror

    Path("recent.npy").touch()
    Path("unused.npy").touch()
    os.utime("unused.npy", (0, 0))
    features = [compute_features(folder, network, 64, 2, "f.npy", workers=1, quiet=True) for _ in range(2)]
    assert sorted(Path().glob("*.npy")) == [Path("f.npy"), Path("recent.npy")]
    assert calls == [5, 5] and features[1].shape == (5, 2, 2, 2, 3) and features[1].dtype == np.float16
    mirrored = FeatureLoader(folder, features[0], 2, Augmentation((1, 1), flip=1.0), seed=3)
    batches = list(mirrored.epoch(1))
    assert [len(labels) for _, labels in batches] == [2, 2]
    assert all(any(np.array_equal(row, views[1]) for views in features[0]) for batch, _ in batches for row in batch)
    assert np.array_equal(next(mirrored.epoch(1, start=1))[0], batches[1][0])
    everything = FeatureLoader(folder, features[1], 2).epoch()
    assert np.concatenate([labels for _, labels in everything]).tolist() == [0, 0, 1, 1, 1]


def test_charts():
    lines = {"training": [2.0, 1.0, None], "held out": [2.5, 2.0, 1e30]}
    assert plots.curves([("loss", lines), ("flat", {"": [3.0] * 3})], [1, 2, 3], "epoch").shape == (300, 880, 3)
    picture = plots.confusion(np.array([[3, 1], [0, 4]]), ["ants", "a very long name of a class indeed"])
    assert picture.min() < 60 and (picture[:, -20:] == 255).all()
    black = np.zeros((20, 30, 3))
    strip = plots.strip({"ants": [black, None], "bees": [black, black]}, ["untrained", "epoch 1"])
    assert strip.shape[0] == 24 + 2 * 24 and 68 + 20 < strip.shape[1] < 68 + 80
    corners = {(y, x): strip[y, -x].max() for y in (24, 43, 48, 67) for x in (34, 5, 68, 39)}
    assert {place for place, level in corners.items() if level} == {(24, 34), (24, 5), (43, 34), (43, 5)}


# --- As PyTorch ---


def test_gradients_and_steps_are_those_of_pytorch():
    """By the references of make_train_references.py: auxiliary classifiers, clipping, two rates, frozen batch norms."""
    rows = {row["name"].decode(): row for row in np.load(REFERENCES / "training.npy")}
    net = freezing.new_network("googlenet", CLASSES, aux=True)
    net.metadata |= {"model": "googlenet", "aux": True}
    start = seeded_weights(net)
    net.update(tree_unflatten([(path, mx.array(array)) for path, array in start.items()]))
    learned = freezing.learned_paths(net, "inception4e")
    frozen = freezing.freeze(net, learned)
    batches.share_batches(net, mx.distributed.init())
    for _, module in net.named_modules():
        if isinstance(module, nn.Dropout):
            module._p_1 = 1.0
    freezing.training_mode(net, frozen)
    cut = freezing.split_layer(net, learned)
    assert cut == "inception4a"  # where the first auxiliary classifier begins
    optimizers = learning.make_optimizers(
        net, "sgd", TRAINING.rate, TRAINING.head_rate, [path for path in learned if path.startswith(("fc.", "aux"))],
        TRAINING.momentum,
    )  # fmt: skip
    ones, labels = mx.ones(CLASSES), mx.array(TRAINING.labels)
    x = learning.frozen_features(net, picture(TRAINING.batch, TRAINING.size, TRAINING.size), cut)

    parameters = dict(tree_flatten(net.trainable_parameters()))
    statistics = {path: array for path, array in tree_flatten(net.parameters()) if "running" in path}
    loss = learning.loss_function(net, cut, TRAINING.smoothing, ones)
    (value, _), gradients = mx.value_and_grad(loss)(parameters, x, labels)
    found = {"loss": value[None]} | {f"gradient {path}": gradient for path, gradient in gradients.items()}
    net.update(tree_unflatten([*parameters.items(), *statistics.items()]))  # as before
    step = learning.training_step(
        net, cut, optimizers, mx.distributed.init(), ones, TRAINING.smoothing, TRAINING.clip, TRAINING.weight_decay
    )
    for _ in range(2):
        step(x, labels)
    after = {path: np.array(array) for path, array in tree_flatten(net.parameters())}
    found |= {f"change {path}": after[path] - start[path] for path in after if path.split(".")[0] in TRAINING.moved}

    assert set(found) == set(rows)
    errors = {}
    for name, row in rows.items():
        largest, values = digest(found[name])
        errors[name] = max(abs(largest - row["largest"]), np.abs(values - row["values"]).max()) / row["largest"]
    assert {name: error for name, error in errors.items() if not error < 1e-3} == {}
    unlearned = [path for path in after if path.split(".")[0] in ("conv1", "inception3b", "inception4e")]
    assert all(np.array_equal(after[path], start[path]) for path in unlearned)


def seeded_weights(net):
    """{path: array}: those that torch has in make_train_references.py, in MLX's layout."""
    shapes = {path: array.shape for path, array in tree_flatten(net.parameters())}
    torchs = {path: (s[0], s[3], s[1], s[2]) if len(s) == 4 else s for path, s in shapes.items()}
    drawn = weights(torchs, Case(None, ()))
    return {path: array.transpose(0, 2, 3, 1) if array.ndim == 4 else array for path, array in drawn.items()}


# --- Interrupted ---


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
    assert "another lr: 0.005, not 0.5" in run(*output, "--resume", "--lr", 0.5, status=2).stderr
    run(*output, "--resume")
    for file in ("{}.npz", "runs/{}/checkpoint.npz"):
        one, two = (np.load(file.format(name)) for name in ("whole", "pieces"))
        assert set(one) == set(two)
        keys = [key for key in one if not key.startswith("__")]
        assert [key for key in keys if not np.array_equal(one[key], two[key])] == []


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
    """To rounding: batch norm, dropout and the auxiliary classifiers included."""
    folder = stripes("set", {"across": 6, "down": 6})
    options = [folder, *SMALL, "--epochs", 2, "--val", 0.2, "--aux", "train", "--batch-size", 8, "--lr", 0.001]
    run(*options, "-o", "one.npz")
    launcher = Path(sys.executable).parent / "mlx.launch"
    done = run(*options, "-o", "two.npz", launch=[launcher, "-n", "2", "--backend", "ring"])
    assert done.stdout.count("epoch 1/2") == 1
    start = dict(tree_flatten(freezing.new_network("googlenet", 2, aux=True).parameters()))
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
    """Previews of a photo.png, of class dreams that take but a moment."""
    write_image("photo.png", 127 + 100 * draw("photo", (40, 36, 3)))
    monkeypatch.setattr(train_dream, "CLASS_DEFAULTS", {"steps": 1, "octaves": 1, "lapnorm": 2})


def test_preview_of_classes(quick):
    """A row a class, which differ; what the file dreams of afterwards is what the preview showed."""
    folder = stripes("set", {"across": 3, "down": 3})
    preview_of(folder, "--epochs", 2, "--preview-class", "Across", "1", "-o", "out.npz")
    pictures = {path.name: read_image(path) for path in Path("runs/out/preview").iterdir()}
    assert set(pictures) == {f"epoch-00{epoch}-{name}.png" for epoch in range(3) for name in ("Across", "1")}
    assert np.abs(pictures["epoch-002-Across.png"] - pictures["epoch-002-1.png"]).mean() > 0.5
    assert np.abs(pictures["epoch-000-1.png"] - pictures["epoch-002-1.png"]).mean() > 0.5
    again = deepdream(
        models.load(weights="out.npz"), read_image("photo.png"), classes="down", **train_dream.CLASS_DEFAULTS
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
    options = [stripes("set", {"across": 2, "down": 1}), *SMALL, "--val", 0, "--batch-size", 1]
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
    train(folder, *SMALL, *cache, "--epochs", 2, "--val", 0, "-o", "out.npz")
    err = capsys.readouterr().err
    assert err.count("1.png: broken picture") == 1 and err.count("notes.jpg: not a picture") == 1
    assert models.load(weights="out.npz").metadata["training"]["val_top1"] is None


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
