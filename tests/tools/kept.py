"""What two runs have in common that differ in the names of their files alone: pixels, arrays and rows."""

import csv
import hashlib
import io
from pathlib import Path

from models.dreaming import atlas

import av
import numpy as np
from material import lasting
from PIL import Image, ImageSequence

from dataset.folder import composed

DRAWN = {"confusion.png", "survey.png", "out_cm.png"}  # show names
LEARNT = {"log.csv", "curves.png"}
UNLIKE = {"source"}  # arrays that tell of files
OTHERWISE = {"command", ".prepare.jsonl"}  # hold nothing else


def essences(folder, prefix="", learnt=False):
    """Return {relative path: what lasts} of all files in a folder, each name without a prefix.

    learnt: names decide what is held out, so that no number is the same.
    Of runs/.cache only the number of files is told, whose names are digests of names.
    """
    found, cached = {}, 0
    for path in sorted(folder.rglob("*")):
        parts = [without(part, prefix) for part in path.relative_to(folder).parts]
        if ".cache" in parts[:-1]:
            cached += 1
        else:
            found["/".join(parts)] = "folder" if path.is_dir() else essence(path, parts[-1], prefix, learnt)
    return found | {"runs/.cache/*": cached}


def without(text, prefix):
    """Return a text without a prefix, which in names of classes is composed, as Unicode has it."""
    return text.replace(prefix, "").replace(composed(prefix), "") if prefix else text


def essence(path, name, prefix, learnt):
    suffix = Path(name).suffix
    if name in OTHERWISE or name in DRAWN or (learnt and name in LEARNT):
        return "there"
    if suffix in (".png", ".jpg", ".gif", ".webp"):
        with Image.open(path) as image:
            return digest(np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(image))
    if suffix == ".html":
        state, cells = atlas.read_page(path)
        return repr((state["finished"], [(name, image) for name, _, image in cells]))
    if suffix in (".mp4", ".webm"):
        with av.open(f"file:{path}") as container:
            return digest(frame.to_ndarray() for frame in container.decode())
    if suffix == ".npz":
        with np.load(path) as arrays:
            names = sorted(name for name in arrays.files if not name.startswith("__") and name not in UNLIKE)
            if learnt:
                return repr([(name, arrays[name].shape, arrays[name].dtype) for name in names])
            return digest(part for name in names for part in (name.encode(), arrays[name]))
    if name == "log.csv":
        return lasting(path)
    if suffix == ".csv":
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        return repr([[without(cell, prefix) for cell in row] for row in csv.reader(io.StringIO(text, newline=""))])
    return digest([path.read_bytes()])


def digest(pieces):
    total = hashlib.sha256()
    for piece in pieces:
        total.update(piece if isinstance(piece, bytes) else np.ascontiguousarray(piece))
    return total.hexdigest()
