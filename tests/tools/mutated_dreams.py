"""prove.py mutations dreams: whole dreams by dream.py's main(), with one damaged file among what they are given."""

import contextlib
import io
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

import models  # noqa: E402

import mutate_data  # noqa: E402
import mutated_data  # noqa: E402
import mutated_pictures  # noqa: E402
import numpy as np  # noqa: E402
from conftest import write_photo  # noqa: E402

import dream  # noqa: E402
from dataset.images import read_image  # noqa: E402

TINY = ["--octaves", "2", "--steps", "1", "--quiet", "--max-size", "40"]
LAYERS = ["--layers", "inception3a"]
ROLES = {"picture": 6, "mask": 1, "guide": 1, "matrix": 1, "concept": 1, "weights": 1, "like": 1}  # and how often


def samples():
    """Return {ROLE.name: bytes}."""
    data, found = mutated_data.KINDS, {}
    pictures = list(mutated_pictures.samples().items())
    for role in ("picture", "mask", "guide"):
        for name, content in pictures[:: 1 if role == "picture" else 6]:
            found[f"{role}.{name}"] = content
    for role, kind in (("matrix", "matrices"), ("concept", "concepts"), ("weights", "weights"), ("like", "recipes")):
        for name, content in data[kind].samples().items():
            found[f"{role}.{name}"] = content
    return found


def mutate(data, rng, name):
    role = name.split(".")[0]
    if role in ("picture", "mask", "guide"):
        return mutate_data.mutate.mutate(data, rng)
    return mutated_data.Kind().mutate(data, rng, name)


def words(path, role, photo):
    """Return the command line that has the damaged file in its role."""
    match role:
        case "picture":
            return [path, *LAYERS]
        case "mask":
            return [photo, "--mask", path, *LAYERS]
        case "guide":
            return [photo, "--guide", path, *LAYERS]
        case "matrix":
            return [photo, "--decorrelate", path, *LAYERS]
        case "concept":
            return [photo, "--concept", path]
        case "weights":
            return [photo, "--weights", path, "--class", "slugs"]
    return [photo, "--like", path]


def attempt(path):
    role = path.name.partition("-")[2].split(".")[0]
    with tempfile.TemporaryDirectory() as folder:
        photo, out = write_photo(Path(folder, "photo.png")), Path(folder, "out.png")
        given = path
        if role == "concept":  # known by its suffix
            given = Path(folder, "concept.npz")
            given.write_bytes(path.read_bytes())
        if role == "like":
            given = Path(folder, "like.png")
            try:
                text = path.read_bytes().decode(errors="replace")
                options = mutated_data.recipes.text_options(given, text)
                mutated_data.Image.new("RGB", (8, 6)).save(given, **options)
            except (ValueError, OSError):
                return "no text"
        models.load = load
        line = [str(word) for word in words(given, role, photo)]

        def dream_it():
            with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
                assert dream.main([*line, *TINY, "-o", str(out)]) == 0

        outcome = mutated_data.one_line(None, dream_it, "a dream")
        assert out.exists() == (outcome == "a dream")
        if out.exists():
            assert np.isfinite(read_image(out)).all()
        assert {file.name for file in Path(folder).iterdir()} <= {"photo.png", "out.png", "concept.npz", "like.png"}
    return outcome


ORIGINAL = models.load


def load(name=None, weights=None):
    """Read the bundled network once."""
    return ORIGINAL(name, weights) if weights else mutated_data.net()
