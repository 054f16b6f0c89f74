"""prove.py mutations journals, frames, runs and caches: what a run keeps for the next one, damaged, is gone on with,
made anew, or refused in one line. What it names is never taken for a file elsewhere.
"""

import contextlib
import functools
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

import models  # noqa: E402
from models.dreaming import features  # noqa: E402
from models.training import checkpoints  # noqa: E402
from models.training import run as training_run  # noqa: E402

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402
import mlx.optimizers as optim  # noqa: E402
import mutate_data  # noqa: E402
import numpy as np  # noqa: E402
from conftest import smooth_image, write_photo  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from mutated_data import Kind, net, one_line  # noqa: E402
from PIL import Image  # noqa: E402

import dataset.features  # noqa: E402
import dream_video  # noqa: E402
from dataset import duplicates, prepare  # noqa: E402

SIDE = 32
NET = net()


class InProcess:
    """Stands for dataset.workers.Workers: what the workers do is done here, and no process has to start."""

    def __init__(self, target, setup, count=None):
        module, name = target.split(":")
        self.handle = getattr(sys.modules[module], name)(setup)

    def map(self, tasks, ahead=4):
        return map(self.handle, tasks)

    def __len__(self):
        return 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Journals(Kind):
    """prepare.py's journal of what it did in the output folder."""

    good = "a prepared folder"

    def __init__(self):
        self.folder = None

    def samples(self):
        prepare.Workers = duplicates.Workers = InProcess
        self.folder = Path(tempfile.mkdtemp())
        for seed, name in ((10, "ants"), (20, "bees")):
            (self.folder / "raw" / name).mkdir(parents=True)
            for i in range(3):
                write_photo(self.folder / "raw" / name / f"{i}.png", 40, 40, seed=seed + i)
        (self.folder / "raw" / "ants" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        (self.folder / "precious.jpg").write_bytes(b"precious")
        self.prepare()
        shutil.copytree(self.folder / "out", self.folder / "before")
        return {"journal.jsonl": (self.folder / "out" / ".prepare.jsonl").read_bytes()}

    def prepare(self):
        words = [str(self.folder / "raw"), "-o", str(self.folder / "out"), "--size", "16", "--workers", "1", "--quiet"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return prepare.main(words)

    def mutate(self, data, rng, name):
        return mutate_data.mutate_lines(data, rng)

    def attempt(self, path):
        out = self.folder / "out"
        shutil.rmtree(out)
        shutil.copytree(self.folder / "before", out)
        shutil.copy(path, out / ".prepare.jsonl")
        outcome = one_line(None, self.prepare, self.good)
        assert (self.folder / "precious.jpg").exists() and (self.folder / "raw/ants/0.png").exists()
        if outcome == self.good:
            found, wanted = (
                {str(file.relative_to(folder)) for file in folder.rglob("*.jpg")}
                for folder in (out, self.folder / "before")
            )
            assert found == wanted
        return outcome


class Frames(Kind):
    """What dream_video.py keeps of a film that is half done: the options, the state after the last frame, a frame."""

    good = "a film"

    def __init__(self):
        self.folder = None

    def words(self):
        words = [str(self.folder / "photo.png"), "-o", str(self.folder / "zoom"), "--frames", "4", "--layers", "conv2"]
        return [*words, "--octaves", "1", "--steps", "1", "--quiet"]

    def samples(self):
        self.folder = Path(tempfile.mkdtemp())
        write_photo(self.folder / "photo.png", SIDE, SIDE + 4)
        models.load = lambda *_, **__: NET  # read once
        keep = dream_video.keep_frame

        def stopped(folder, n, *rest):
            if n == 2:
                raise KeyboardInterrupt
            keep(folder, n, *rest)

        dream_video.keep_frame = stopped
        with contextlib.suppress(KeyboardInterrupt):
            dream_video.main(self.words())
        dream_video.keep_frame = keep
        kept = self.folder / "zoom.frames"
        shutil.copytree(kept, self.folder / "before")
        return {name: (kept / name).read_bytes() for name in ("options.json", "state.npz", "000001.png")}

    def mutate(self, data, rng, name):
        if name.endswith(".png"):
            return mutate_data.mutate.mutate(data, rng)
        return super().mutate(data, rng, name)

    def attempt(self, path):
        kept, out = self.folder / "zoom.frames", self.folder / "zoom"
        for folder in (kept, out):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder / "before", kept)
        shutil.copy(path, kept / path.name.rpartition("-")[2])

        def go_on():
            with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
                dream_video.main(self.words())

        outcome = one_line(None, go_on, self.good)
        assert out.exists() == (outcome == self.good)
        return outcome


class Network(nn.Module):
    """What checkpoints need of a network."""

    classes = ("ants", "bees")

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 2)


class Runs(Kind):
    """A training run's checkpoint."""

    good = "a run"

    def run(self, folder):
        network, optimizer = Network(), optim.AdamW(1e-3)
        optimizer.init(dict(tree_flatten(network.trainable_parameters())))
        args = SimpleNamespace(run=folder, resume=True, epochs=3, folder="set")
        settings = {"lr": 0.01, "model": "googlenet", "pictures": 12345, "processes": 1, "aux": False}
        one = [(optimizer, 0.01, ["fc.weight", "fc.bias"])]
        return training_run.Run(args, network, None, [], None, one, mx.distributed.init(), settings, False)

    def write(self, folder):
        run = self.run(folder)
        row = {"epoch": 1, "train_loss": 0.7, "train_top1": 0.5, "val_loss": None, "val_top1": None, "val_top5": None}
        row |= {"learning_rate": 0.01, "images_per_second": 3.2, "seconds": 9.0, "waited": 0.1}
        run.state = training_run.State(1, 2, 1.5, 3, 8, 2.5, 0.1, [row], 1)
        training_run.save(run)
        yield folder / "checkpoint.npz"

    def read(self, path):
        folder = path.with_name(f"{path.name}.run")
        folder.mkdir()
        try:
            shutil.copy(path, folder / "checkpoint.npz")
            run = self.run(folder)
            checkpoints.read_settings(folder / "checkpoint.npz")
            training_run.start_or_resume(run)
            best = max(run.state.history, key=lambda row: (row["val_top1"] or 0, row["epoch"]), default=None)
            json.dumps([best, run.state.to_json()])
            mx.eval(run.net.parameters(), run.optimizers[0][0].state)
        finally:
            shutil.rmtree(folder)

    def attempt(self, path):
        return one_line(None, lambda: self.read(path), self.good)


class Noise:
    """Stands for dataset.Loader: noise for every picture."""

    def __init__(self, folder, batch_size, size, **options):
        self.count, self.size = len(folder), size

    def epoch(self):
        rng = np.random.default_rng(0)
        yield rng.uniform(0, 255, (self.count, self.size, self.size, 3)).astype(np.float32), np.arange(self.count)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Caches(Kind):
    """Features of a folder's pictures, which are kept for the next time."""

    good = "features"
    layers = ("inception3b",)

    @functools.cached_property
    def paths(self):
        folder = Path(tempfile.mkdtemp())
        for i in range(3):
            Image.fromarray(smooth_image(SIDE, SIDE, i)).save(folder / f"{i}.png")
        features.CACHE, features.IMAGE_SIZE = folder / "cache", 64
        dataset.features.Loader = Noise
        return [str(folder / f"{i}.png") for i in range(3)]

    def write(self, folder):
        features.image_features(net(), self.paths, list(self.layers), quiet=True)
        (self.file,) = features.CACHE.glob("*.npy")
        yield self.file

    def mutate(self, data, rng, name):
        return mutate_data.mutate_npy(data, rng)

    def read(self, path):
        shutil.copy(path, self.file)
        with np.errstate(all="ignore"):
            found = features.image_features(net(), self.paths, list(self.layers), quiet=True)
        channels = net().layer_info[self.layers[0]][0]
        assert found[self.layers[0]].shape[1] == channels and len(found[self.layers[0]]) <= 3

    def attempt(self, path):
        return one_line(None, lambda: self.read(path), self.good)


KINDS = {"journals": Journals(), "frames": Frames(), "runs": Runs(), "caches": Caches()}
