"""Find the images of an ImageFolder: FOLDER/<class>/*.jpg, or FOLDER/train/<class> and FOLDER/val/<class>."""

import glob
import os
import unicodedata
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.cli import UserError, error_text, log
from dataset.filetypes import identify
from dataset.images import SUFFIXES

# what file managers, network disks and recycle bins leave behind, besides hidden files; in lower case
JUNK = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "__macosx", "icon\r", "network trash folder"),
    *("temporary items", "@eadir", "@tmp", "@recycle", "@recently-snapshot", "@sharebin", "@sharesnap"),
    *("#recycle", "#snapshot", "~snapshot", "lost+found", "$recycle.bin", "recycler", "system volume information"),
}
# files that only look like images to those who look inside: copies and downloads that are not finished
UNFINISHED = {".bak", ".orig", ".tmp", ".part", ".crdownload", ".download", ".partial", ".old"}
VAL_NAMES = ("val", "valid", "validation")


@dataclass(frozen=True)
class ImageFolder:
    """Images by class. classes: names, sorted; paths: one an image; labels: int32, the class's place in `classes`."""

    classes: tuple
    paths: tuple
    labels: np.ndarray

    def __len__(self):
        return len(self.paths)

    @property
    def counts(self):
        """Images a class, in the order of `classes`."""
        return np.bincount(self.labels, minlength=len(self.classes))


def read_folder(root, val=0.0, seed=0):
    """Return (train, val), two ImageFolders with the same classes.

    A folder with train/ and val/ is taken as found. Otherwise `val`, a fraction 0..1, of every class (at least one
    picture, and never its last) is drawn by `seed`; adding a class leaves the draw of the others as it was.
    Raises UserError where there are no classes or no pictures.
    """
    root = Path(root)
    entries = [entry for entry in list_tree(root) if is_image(os.path.join(root, entry.path))]
    entries = [entry for entry in entries if entry.class_name]
    training = [entry for entry in entries if entry.split != "val"]
    if not training:
        raise UserError(f"{root}: no pictures in class folders; put them in {root}/<class>/")
    classes = tuple(sorted({entry.class_name for entry in training}))
    check_spelling(entries)
    unknown = sorted({entry.class_name for entry in entries} - set(classes))
    if unknown:
        raise UserError(f"{root}/val: class {unknown[0]} is not in {root}/train")
    if len(training) == len(entries):
        held_out = draw_validation(training, val, seed)
        training = [entry for entry in entries if entry.path not in held_out]
    else:
        held_out = {entry.path for entry in entries if entry.split == "val"}
    validation = [entry for entry in entries if entry.path in held_out]
    for folder in empty_classes(root / training[0].split, classes):
        log(f"{folder}: no pictures; the class is left out")
    return folder_of(root, classes, training), folder_of(root, classes, validation)


def folder_of(root, classes, entries):
    label = {name: number for number, name in enumerate(classes)}
    paths = tuple(os.path.join(root, entry.path) for entry in entries)
    return ImageFolder(classes, paths, np.array([label[entry.class_name] for entry in entries], np.int32))


def draw_validation(entries, fraction, seed):
    """Return the paths of a stratified validation set."""
    classes = {}
    for entry in entries:
        classes.setdefault(entry.class_name, []).append(entry.path)
    drawn = set()
    for name, paths in classes.items():
        count = min(max(round(fraction * len(paths)), 1), len(paths) - 1) if fraction > 0 else 0
        order = np.random.default_rng((seed, zlib.crc32(name.encode("utf-8", "surrogateescape")))).permutation(
            len(paths)
        )
        drawn.update(paths[i] for i in order[:count])
    return drawn


def empty_classes(folder, classes):
    subfolders = [entry for entry in folder.iterdir() if entry.is_dir() and not is_skipped(entry.name)]
    return sorted(str(entry) for entry in subfolders if composed(entry.name) not in classes)


def check_spelling(entries):
    """Raise UserError where two class folders of a split have one name, composed in one and decomposed in the other."""
    folders = {}
    for entry in entries:
        folder = entry.path.split("/")[1 if entry.split else 0]
        if folders.setdefault((entry.split, entry.class_name), folder) != folder:
            raise UserError(
                f"there are two folders {entry.class_name}, their accents written in two ways (Unicode NFC and NFD): "
                "put the pictures of one into the other"
            )


def composed(name):
    """Return a name as Unicode composes it: a Mac's copy of a folder may decompose its accents.

    Of a name that is no UTF-8, the bytes that are not are taken for Latin-1. The locale does not matter.
    """
    name = os.fsencode(name).decode("utf-8", "surrogateescape")
    known = "".join(chr(ord(char) - 0xDC00) if "\udc80" <= char <= "\udcff" else char for char in name)
    return unicodedata.normalize("NFC", known)


@dataclass(frozen=True)
class FolderEntry:
    """A file of a tree: its path relative to the root, "train", "val" or "", and its class in NFC ("" for none)."""

    path: str
    split: str
    class_name: str


def list_tree(root):
    """Return every file below `root` as a FolderEntry, sorted by path, whatever its suffix.

    It is a tree of splits when its folders are train, val and perhaps test (which is left alone), and nothing else;
    so a class may well be called "train". Raises UserError where `root` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: " + ("is not a folder" if root.exists() else "no such folder"))
    folders = {entry.name for entry in root.iterdir() if entry.is_dir() and not is_skipped(entry.name)}
    split_tree = "train" in folders and folders <= {"train", "test", *VAL_NAMES} and has_folders(root / "train")
    entries = []
    for path in find_files(root):
        parts = path.split("/")
        split = ""
        if split_tree:
            if parts[0] == "test":
                continue
            split = "val" if parts[0] in VAL_NAMES else "train" if parts[0] == "train" else ""
            parts = parts[1:] if split else parts
        entries.append(FolderEntry(path, split, composed(parts[0]) if len(parts) > 1 else ""))
    return entries


def has_folders(folder):
    return any(entry.is_dir() and not is_skipped(entry.name) for entry in folder.iterdir())


def find_images(root):
    """Return the paths of all images below a folder, sorted; classes or none."""
    return [path for path in (os.path.join(root, path) for path in find_files(root)) if is_image(path)]


def is_image(path):
    """Return whether a file is an image by its suffix, or, where that says nothing, by its content."""
    suffix = Path(path).suffix.lower()
    if suffix in SUFFIXES or suffix in UNFINISHED or path.endswith("~"):
        return suffix in SUFFIXES
    try:
        return identify(path)[0] == "image"
    except OSError:
        return False


def find_files(root):
    """Return relative paths, with "/", of all files below `root`, sorted; hidden ones left out.

    A file that symbolic links reach as well is counted once, under its own path if that lies below `root`.
    """
    seen, found, links = set(), [], []

    def walk(folder, real, relative):
        if real in seen:
            return
        seen.add(real)
        try:
            with os.scandir(folder) as entries:
                entries = [entry for entry in entries if not is_skipped(entry.name)]
        except OSError as error:
            if not relative:
                raise
            log(f"{error_text(error, folder)}; it is left out")
            return
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink():
                links.append(relative + entry.name)
            elif entry.is_dir():
                walk(entry.path, os.path.join(real, entry.name), f"{relative}{entry.name}/")
            elif entry.is_file():
                add(os.path.join(real, entry.name), relative + entry.name)

    def add(real, relative):
        if real not in seen:
            seen.add(real)
            found.append(relative)

    walk(root, os.path.realpath(root), "")
    for relative in links:  # grows while linked folders are walked
        path = os.path.join(root, relative)
        if os.path.isdir(path):
            walk(path, os.path.realpath(path), f"{relative}/")
        elif os.path.isfile(path):
            add(os.path.realpath(path), relative)
    return sorted(found)


def is_skipped(name):
    return name.startswith((".", "SYNOPHOTO_THUMB")) or name.lower() in JUNK


def expand(names):
    """Return [(path, place)] of what a command line names: images, folders (at any depth) and patterns such as "*.jpg".

    place: the path relative to the folder that was named, or the file's name. Raises UserError where a folder holds no
    picture or nothing fits a pattern. A name that is none of those is taken for a picture's.
    """
    found = {}
    for name in map(str, names):
        if os.path.isdir(name):
            paths = [(path, os.path.relpath(path, name)) for path in find_images(name)]
            if not paths:
                raise UserError(f"{name}: there is no picture in this folder")
        elif glob.has_magic(name) and not os.path.exists(name):
            paths = [path for path in sorted(glob.glob(name, recursive=True)) if os.path.isfile(path)]
            paths = [(path, os.path.basename(path)) for path in paths if is_image(path)]
            if not paths:
                raise UserError(f"no picture fits {name}")
        else:
            paths = [(name, os.path.basename(name))]
        for path, place in paths:
            found.setdefault(path, place)
    return [(Path(path), Path(place)) for path, place in found.items()]
