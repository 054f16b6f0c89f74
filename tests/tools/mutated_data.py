"""prove.py mutations weights, concepts, backgrounds, matrices, lists, schedules, recipes and masks: what a user hands
to a script besides pictures and films, damaged, gives what it is for or one line.
"""

import contextlib
import functools
import io
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

import models  # noqa: E402
from models import weights_file  # noqa: E402
from models.dreaming import options, recipes, schedules  # noqa: E402
from models.dreaming.background import AXES, parse_background, read_background  # noqa: E402
from models.dreaming.class_concepts import class_concepts, pack_concepts  # noqa: E402
from models.dreaming.concepts import Concept, check_fits, default_layer, read_concept, write_concept  # noqa: E402
from models.dreaming.targets import chosen_targets  # noqa: E402
from models.fingerprint import feature_digest  # noqa: E402
from models.weights_file import read_extras  # noqa: E402

import mutate_data  # noqa: E402
import mutated_pictures  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

import convert  # noqa: E402
import dream  # noqa: E402
import dream_video  # noqa: E402
from dataset.camera import Step, plan_zoom, read_schedule  # noqa: E402
from dataset.cli import UserError, error_text  # noqa: E402
from dataset.color import load_matrix  # noqa: E402


@functools.cache
def net():
    """The bundled network."""
    return models.load("googlenet", weights=models.STARTER)


def one_line(path, read, good):
    """Return `good` if read() returns, "one line" if it raises a UserError that is one and names the file."""
    try:
        read()
    except (UserError, OSError) as error:  # cli.run() tells both in one line
        line = " ".join(error_text(error).split())  # as cli.print_error() prints it
        assert line and len(line) < 20_000, line[:300]
        assert path is None or str(path) in line or path.name in line, line[:300]
        return "one line"
    return good


class Kind:
    """A kind of file: samples() {name: bytes}; mutate(data, rng, name); attempt(path)."""

    good = "read"

    def samples(self):
        with tempfile.TemporaryDirectory() as folder:
            return {path.name: path.read_bytes() for path in self.write(Path(folder))}

    def mutate(self, data, rng, name):
        for _ in range(rng.choice((1, 1, 2))):
            data = mutate_data.mutate_npz(data, rng) if name.endswith(".npz") else mutate_data.mutate_json(data, rng)
        return data

    def attempt(self, path):
        return one_line(path, lambda: self.read(path), self.good)


def concept(name="slugs"):
    layer = default_layer(net())
    direction = np.random.default_rng(1).standard_normal(net().layer_info[layer][0])
    direction = (direction / np.linalg.norm(direction)).astype(np.float16)
    return Concept(name, layer, direction, 0.5, 7, feature_digest(net()), "7 images of slugs")


class Weights(Kind):
    """A weights file of format 2, with the concept of a class and a background, small by its few classes and layers."""

    good = "a network"

    def write(self, folder):
        arrays, metadata = weights_file.read(models.STARTER)
        arrays = {path: array[:3] if path.startswith("fc.") else array for path, array in arrays.items()}
        names = ["slugs", "ants", "bees"]
        metadata = metadata.replace(num_classes=3, classes=names, training={"val": 0.1, "seed": 0}, source="x.pth")
        layer, _ = concept().layer, None
        rng, channels = np.random.default_rng(2), net().layer_info[layer][0]
        extras = pack_concepts({"slugs": concept(), "bees": concept("bees")}, names)
        for part, shape in (("mean", (channels,)), ("factor", (channels, AXES)), ("rest", (channels,))):
            extras[f"background.{layer}.{part}"] = rng.uniform(0, 1, shape).astype(np.float16)
        weights_file.write(folder / "ours.npz", arrays, metadata, "float16", extras)
        yield folder / "ours.npz"

    def read(self, path):
        loaded = models.load(weights=path)
        for name, array in (("mean", loaded.metadata.mean), ("std", loaded.metadata.std)):
            assert len(array) == 3, name
        with contextlib.redirect_stdout(io.StringIO()):
            convert.print_info(path)
            dream.list_layers(loaded)
        class_concepts(loaded)
        parse_background(loaded, path, read_extras(path, "background."))
        args = dream.build_parser().parse_args(["x.png", "--weights", str(path)])
        chosen_targets(loaded, args)


class Concepts(Kind):
    good = "a concept"

    def write(self, folder):
        write_concept(folder / "concept.npz", concept())
        yield folder / "concept.npz"

    def read(self, path):
        with contextlib.redirect_stdout(io.StringIO()):
            convert.print_info(path)
        check_fits(net(), read_concept(path), path)


class Backgrounds(Kind):
    good = "a background"

    def write(self, folder):
        layer = default_layer(net())
        rng, channels = np.random.default_rng(2), net().layer_info[layer][0]
        parts = {"mean": (channels,), "factor": (channels, AXES), "rest": (channels,)}
        arrays = {f"{layer}.{part}": rng.uniform(0, 1, shape).astype(np.float16) for part, shape in parts.items()}
        digest = np.frombuffer(feature_digest(net()).encode(), np.uint8)
        np.savez(folder / "x.background.npz", **arrays, digest=digest, pictures=np.int32(200))
        yield folder / "x.background.npz"

    def read(self, path):
        for background in read_background(net(), path).values():
            with np.errstate(all="ignore"):
                background.whiten(np.ones(len(background.mean)))


class Matrices(Kind):
    good = "a matrix"

    def write(self, folder):
        matrix = np.random.default_rng(0).uniform(-1, 1, (3, 3))
        np.savez(folder / "x_cm.npz", matrix=matrix, mean=matrix[0], count=np.array(3))
        yield folder / "x_cm.npz"

    def read(self, path):
        load_matrix(path)


class Lists(Kind):
    good = "names"

    def write(self, folder):
        (folder / "classes.txt").write_text("tench, Tinca tinca\nants\n\nein Käfer\n" * 5, encoding="utf-8")
        yield folder / "classes.txt"

    def mutate(self, data, rng, name):
        return mutate_data.mutate_lines(data, rng)

    def read(self, path):
        names = convert.read_classes(path)
        if names:
            metadata = weights_file.Metadata("googlenet", len(names)).replace(classes=names)
            weights_file.Metadata.from_dict(json.loads(json.dumps(metadata.to_dict())))


class Schedules(Kind):
    good = "a plan"

    def write(self, folder):
        plan = [
            {"frame": 0, "zoom": 1.05, "layers": ["inception3b", "conv2:3=0.5"], "pan": [1, -2]},
            {"frame": 6, "zoom": 0.98, "rotate": 2.5, "center": [0.2, 0.8], "layers": ["inception4c:1,3"]},
            {"frame": 9, "layers": ["pool3/3x3_s2"], "rotate": -1},
        ]
        (folder / "schedule.json").write_text(json.dumps(plan))
        yield folder / "schedule.json"

    def read(self, path):
        parser, *_ = dream_video.build_parser()
        args = parser.parse_args(["photo.png", "--schedule", str(path)])
        schedules.names_concepts(path)
        entries = read_schedule(path)
        chosen = options.settings(args)
        schedules.schedule_targets(net(), args, chosen, entries)
        first = Step(chosen["layers"] or [], chosen["concepts"] or [], args.zoom, args.rotate, (0.0, 0.0), (0.5, 0.5))
        for step in plan_zoom(first, 12, entries):
            dream_video.transform_view(np.zeros((8, 8, 3), np.float32), step)

    def attempt(self, path):
        return one_line(None, lambda: self.read(path), self.good)


class Recipes(Kind):
    """A recipe as JSON, put into a picture that is sound."""

    good = "a recipe"

    def write(self, folder):
        lines = (
            ["p.png", "--layers", "inception3b=0.5", "--octaves", "2", "--keep-color", "--lapnorm", "3"],
            ["p.png", "--class", "0=2", "--max-size", "64", "--mask", "m.png", "--decorrelate", "x_cm.npz"],
            ["--noise", "40x30", "--visualize", "--layers", "conv2:3"],
        )
        for number, words in enumerate(lines):
            args = dream.build_parser().parse_args(words)
            targets = [type("T", (), {"concept": concept()})] if number == 0 else []
            recipe = recipes.make_recipe(net(), "p.png", recipes.recipe_options(net(), args), targets)
            (folder / f"recipe{number}.json").write_text(recipes.to_text(recipe))
            yield folder / f"recipe{number}.json"

    def attempt(self, path):
        text = path.read_bytes().decode(errors="replace")
        picture = path.with_name(f"{path.stem}{'.jpg' if len(text) % 2 else '.png'}")
        try:
            save = recipes.text_options(picture, text[:60_000])
            Image.new("RGB", (8, 6)).save(picture, **save)
        except (ValueError, OverflowError, OSError):  # no text that a picture may hold
            return "no text"
        try:
            return one_line(None, lambda: self.read(picture), self.good)
        finally:
            picture.unlink()

    def read(self, picture):
        with contextlib.redirect_stdout(io.StringIO()):
            dream.main(["--recipe", str(picture)])
        like = recipes.read_recipe(picture)
        parser = dream.build_parser()
        args = options.parse_over(parser, ["p.png"], recipes.repeated_options(like["options"]))
        options.check_use(args, {})
        if not (args.guide or args.mask or isinstance(args.decorrelate, str)):
            options.settings(args)
        if not args.background and not any(map(os.path.exists, args.concepts or [])):
            chosen_targets(net(), args, recipes.remembered_concepts(like))


class Masks(Kind):
    """A picture that says where to dream, or another that guides it."""

    good = "a mask"

    def samples(self):
        return mutated_pictures.samples()

    def mutate(self, data, rng, name):
        return mutate_data.mutate.mutate(data, rng)

    def read(self, path):
        args = dream.build_parser().parse_args(["p.png", "--mask", str(path), "--guide", str(path)])
        found = options.settings(args)
        assert found["mask"].ndim == 2 and np.isfinite(found["mask"]).all()


KINDS = {
    "weights": Weights(),
    "concepts": Concepts(),
    "backgrounds": Backgrounds(),
    "matrices": Matrices(),
    "lists": Lists(),
    "schedules": Schedules(),
    "recipes": Recipes(),
    "masks": Masks(),
}
