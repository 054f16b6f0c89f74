"""What prove.py's kills, disk and places work with: a folder of small inputs, and commands that make something of them.

Everything is as small as the scripts take it, since most of a run is the start of Python and MLX.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import models  # noqa: E402
from models import weights_file  # noqa: E402

import numpy as np  # noqa: E402
from conftest import smooth_image, write_photo  # noqa: E402
from PIL import Image  # noqa: E402
from videos import moving_frames, write_video  # noqa: E402

TINY = ("--layers", "conv2", "--octaves", "1", "--steps", "2", "--quiet")
TRAIN = ("--image-size", "32", "--batch-size", "4", "--workers", "1", "--quiet", "--train", "inception5b", "fc")
TRAIN += ("--epochs", "2", "--val", "0.25", "-o", "out.npz")
LAUNCH = (str(Path(sys.executable).parent / "mlx.launch"), "-n", "2", "--backend", "ring")
LAUNCH += ("--starting-port", str(20000 + os.getpid() % 10000))  # beside other provings and tests
TIMES = {"images_per_second", "seconds", "waited"}  # columns of log.csv that no two runs have alike


@dataclass(frozen=True)
class Job:
    """A command, run in a copy of the folder of write_inputs()."""

    script: str
    arguments: tuple
    outputs: tuple  # that it writes, and puts in the place of what was there
    resume: bool = False  # whether the next run takes --resume, if there is something to go on from
    launch: tuple = ()

    def words(self, again=None):
        """Return the command; again: the folder that an earlier run has left."""
        words = [*self.launch, sys.executable, str(ROOT / self.script), *self.arguments]
        if self.script == "train_dream.py":  # which says so where there is no run to go on with
            return words + ["--resume"] * bool(again and (again / "runs/out/checkpoint.npz").exists())
        return words + ["--resume"] * self.resume


JOBS = {
    "folder": Job("dream.py", ("photos", "-o", "out", *TINY, "--save-every", "1", "--growth", "gif"), ("out",), True),
    "concept": Job(
        "dream.py",
        ("photo.png", "--concept", "set/across", "--background", "photos", "--save-concept", "c.npz", "--weights")
        + ("own.npz", "-o", "out.png", *TINY[2:]),
        ("out.png", "c.npz"),
    ),
    "survey": Job(
        "dream.py", ("photo.png", "--survey", "--max-size", "48", *TINY[2:], "-o", "survey.png"), ("survey.png",)
    ),
    "atlas": Job(
        "dream.py",
        ("photo.png", "--survey", "inception3a.branch2.1", "--max-size", "160", *TINY[2:], "-o", "atlas.html"),
        ("atlas.html",),
        True,
    ),
    "zoom": Job("dream_video.py", ("photo.png", "-o", "out.mp4", "--frames", "8", *TINY), ("out.mp4",)),
    "loop": Job("dream_video.py", ("photo.png", "-o", "out.gif", "--frames", "8", "--loop", *TINY), ("out.gif",)),
    "film": Job("dream_video.py", ("film.mp4", "-o", "out.mp4", *TINY), ("out.mp4",)),
    "frames": Job("dream_video.py", ("film.mp4", "-o", "out", *TINY), ("out",)),
    "flow": Job("dream_video.py", ("film.mp4", "-o", "out.webm", "--flow", *TINY), ("out.webm",)),
    "train": Job("train_dream.py", ("set", *TRAIN), ("out.npz",)),
    "cache": Job("train_dream.py", ("set", *TRAIN, "--cache"), ("out.npz",)),
    "two": Job("train_dream.py", ("set", *TRAIN), ("out.npz",), launch=LAUNCH),
    "convert": Job("convert.py", ("weights.safetensors", "-o", "out.npz", "--quiet"), ("out.npz",)),
    "prepare": Job("dataset/prepare.py", ("set", "-o", "out", "--size", "32", "--quiet"), ("out",)),
    "colors": Job("calc_cm.py", ("set", "-o", "out_cm.npz", "--plot", "out.png", "--quiet"), ("out_cm.npz", "out.png")),
}


def available_jobs(names=None):
    """Return {name: Job} of those named (default: all), without what this machine cannot do; says so."""
    jobs = {name: JOBS[name] for name in names or JOBS}
    if "flow" in jobs and not importlib.util.find_spec("cv2"):
        print("flow: skipped, since it needs OpenCV")
        del jobs["flow"]
    return jobs


def write_inputs(folder):
    """Write photo.png, photos/, film.mp4, set/, weights.safetensors and own.npz."""
    folder.mkdir(exist_ok=True)
    write_photo(folder / "photo.png")
    for i in range(3):
        (folder / "photos").mkdir(exist_ok=True)
        write_photo(folder / "photos" / f"{i}.png", 33 + i, 47, seed=i)
    write_video(folder / "film.mp4", moving_frames(6, 32, 48), sound=[{}])
    for name, turn in (("across", 0), ("down", 1)):
        (folder / "set" / name).mkdir(parents=True)
        for i in range(6):
            wave = 80 * np.sin(np.arange(40) * (0.7 + 0.1 * i))[None, :, None]
            levels = smooth_image(40, 40, 10 * turn + i) / 2 + np.rot90(
                np.broadcast_to(64 + wave / 2, (40, 40, 3)), turn
            )
            Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(folder / "set" / name / f"{i}.png")
    arrays, metadata = weights_file.read(models.STARTER)
    write_safetensors(folder / "weights.safetensors", arrays)
    shutil.copy(models.STARTER, folder / "own.npz")
    return folder


def write_safetensors(path, arrays):
    """Write arrays as a file of the safetensors format, in torch's order of axes."""
    import json

    header, data = {}, b""
    for key, array in arrays.items():
        stored = np.ascontiguousarray(array.transpose(0, 3, 1, 2) if array.ndim == 4 else array)
        place = [len(data), len(data) + stored.nbytes]
        header[key] = {"dtype": {2: "F16", 4: "F32"}[stored.itemsize], "shape": stored.shape, "data_offsets": place}
        data += stored.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def copy_inputs(template, folder):
    """Copy the inputs into a new folder; times included, which tell whether a file has changed."""
    shutil.copytree(template, folder)
    return folder


def run(words, folder, timeout=120, **options):
    """Run a command in a folder; returns subprocess.CompletedProcess with text."""
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "replace"} | options
    return subprocess.run(words, cwd=folder, timeout=timeout, env=environment(), **options)


def go_on(words, folder):
    """Run a command where another run came to nothing; AssertionError if it does not end well."""
    done = run(words, folder)
    assert done.returncode == 0, f"the next run ended with {done.returncode}: {done.stderr[-600:]}"


def environment(**changes):
    """Return the environment of a run: BLAS threads of two processes would wait for each other."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **changes}


def contents(folder, template=None):
    """Return {relative path: digest} of all files in a folder, without those of `template`.

    Digests are of what two runs must have in common: not of times, and of a checkpoint's arrays alone.
    """
    known = {path.relative_to(template) for path in template.rglob("*")} if template else set()
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*"))}
    return {str(name): digest(path) for name, path in paths.items() if name not in known}


def compare(wanted, found):
    """Raise AssertionError where what a run has left, contents(), is not what it should be."""
    strays, missing = sorted(found.keys() - wanted.keys()), sorted(wanted.keys() - found.keys())
    assert not strays and not missing, f"stray: {strays}, missing: {missing}"
    changed = [name for name in wanted if wanted[name] != found[name]]
    assert not changed, f"not the same: {changed}"


def digest(path):
    if path.is_dir():
        return "folder"
    if path.name in ("checkpoint.npz", "log.csv", ".prepare.jsonl"):
        return "arrays and rows: " + lasting(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lasting(path):
    """Return the digest of what does not depend on times and on the order of things that happened."""
    total = hashlib.sha256()
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            for name in sorted(set(arrays.files) - {"__state__"}):
                total.update(name.encode() + arrays[name].tobytes())
    elif path.suffix == ".csv":
        rows = [line.split(",") for line in path.read_text().splitlines()]
        kept = [i for i, name in enumerate(rows[0]) if name not in TIMES]
        total.update(repr([[row[i] for i in kept] for row in rows]).encode())
    return total.hexdigest()
