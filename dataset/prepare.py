"""Cleans a folder of gathered pictures for training.

    python dataset/prepare.py RAW... -o dataset/NAME

RAW holds RAW/<class>/* or RAW/train/<class>/* and RAW/val/<class>/*, folders nested as deep as they like; several RAWs
are merged. Every file is decoded to its last pixel. What is no whole picture is left out, and so are duplicates,
wherever the other copy lies: in the same class, in another, in the other split. The rest is written to dataset/NAME in
the same layout: upright, sRGB, the shorter side --size pixels, JPEG. The sources are only read.

Left in dataset/NAME besides the pictures: report.csv, one line for each file left out; left-out.jpg, a sheet of those
that can be shown, each beside its twin; and .prepare.jsonl, what is known of every source file, so that an
interrupted run goes on where it was and a later one reads only what is new or changed.

How duplicates are found, and which of them is kept: see dataset/duplicates.py.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from dataset import startup  # noqa: F401, I001  (Ctrl-C from here on says one line)

import csv
import os
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from dataset import plots
from dataset.cli import Parser, UsageError, UserError, error_text, log, print_error, progress, run, whole_number
from dataset.decoding import BYTES_PER_PIXEL, MEMORY_LIMIT
from dataset.duplicates import ImageInfo, describe, find_duplicates
from dataset.files import atomic_write, check_place, disk_error, file_name, shorten
from dataset.folder import check_spelling, composed, is_image, list_tree
from dataset.images import SUFFIXES, ImageError, read_rgb, write_image
from dataset.scan_cache import ScanCache
from dataset.workers import Workers, cores

FEW = 20  # pictures in a class
FAULTS = {"broken", "too large", "no permission", "no such file", "needs pillow-heif", "cannot be read"}  # status 1
NAMED = 20  # faults that are told one by one
SHEET_ROWS, SHEET_COLUMNS, CELL = 60, 4, 120  # of left-out.jpg; CELL in pixels, for each picture of a pair
SHOWN_REASONS = ["near-duplicate", "too small", "identical pixels", "identical file"]  # the first are to be looked at


def build_parser():
    parser = Parser(
        prog="prepare.py",
        usage="dataset/prepare.py [options] RAW ... -o FOLDER",
        description="Clean folders of pictures for training: leave out broken ones and duplicates, resize the rest.",
        examples=(
            "python dataset/prepare.py gathered/ -o dataset/slugs --report",
            "python dataset/prepare.py gathered/ -o dataset/slugs",
            "python dataset/prepare.py mine/ friends/ -o dataset/pets --fit crop --size 160",
        ),
    )
    add = parser.add_argument
    raw = "folders of pictures, RAW/<class>/ or RAW/train/<class>/ and RAW/val/<class>/; several are merged"
    add("raw", nargs="+", metavar="RAW", help=raw)
    add("-o", "--output", type=Path, required=True, metavar="FOLDER", help="where to write, such as dataset/slugs")
    report = "write no pictures, only report.csv and left-out.jpg: what would be left out, and why"
    add("--report", action="store_true", help=report)
    workers = "processes that decode pictures (default: one a core, %(default)s)"
    add("--workers", type=whole_number(1, 256), default=cores(), metavar="N", help=workers)
    add("--quiet", action="store_true", help="no progress bar")
    add_output_options(parser.add_argument_group("what is written").add_argument)
    add_limits(parser.add_argument_group("what is left out").add_argument)
    return parser


def add_output_options(add):
    shorter = "shorter side of what is written, in pixels"
    add("--size", type=whole_number(16, 8192), default=256, metavar="N", help=shorter)
    shape = "keep: the picture's shape; crop: to the central square; pad: to a square, whose side is --size"
    add("--fit", choices=("keep", "crop", "pad"), default="keep", metavar="HOW", help=shape)
    quality = "JPEG quality of what is written, 1 to 100"
    add("--quality", type=whole_number(1, 100), default=92, metavar="N", help=quality)


def add_limits(add):
    narrow = "leave out what is narrower or lower, in pixels"
    add("--min-size", type=whole_number(1, 8192), default=32, metavar="N", help=narrow)
    most = MEMORY_LIMIT // BYTES_PER_PIXEL // 1_000_000
    bombs = "leave out what has more, as decompression bombs do"
    add("--max-megapixels", type=whole_number(1, 1000), default=most, metavar="N", help=bombs)


def main(arguments=None):
    args = build_parser().parse_args(arguments)
    sources, strays = list_sources(args.raw, args.output)
    check_place(args.output / "report.csv")
    began = time.perf_counter()
    with ScanCache(args.output) as cache:
        cache.plan(sources)
        unknown = [source for source in sources if not cache.knows(source, args)]
        process(unknown, args, cache, f"reading {len(sources):,} files", done=len(sources) - len(unknown))
        left_out = choose(sources, cache, args)
        if not args.report:
            kept = [source for source in sources if source.path not in left_out]
            missing = [source for source in kept if not cache.has_written(source, args)]
            if missing:  # a run with --report, or with other options, or a copy that was the worse one until now
                process(missing, args, cache, "writing")
            cache.remove_all_but({source.target for source in kept})
    write_report(args.output / "report.csv", sources, left_out)
    write_sheet(args.output / "left-out.jpg", sources, left_out, args)
    print_table(sources, left_out, strays, args)
    log(f"{args.output}: {len(sources) - len(left_out):,} pictures, {time.perf_counter() - began:.0f} s", args.quiet)
    if len(left_out) == len(sources):
        raise UserError(f"no picture is left; see {args.output / 'report.csv'}")
    return print_faults(sources, left_out)


# --- What there is ---


@dataclass(slots=True, frozen=True)
class Source:
    path: str
    split: str  # "train", "val" or ""
    class_name: str
    target: str  # relative to the output
    stamp: str  # size and time of change: a file with another stamp is read again


def list_sources(raws, output):
    """Return (sources, number of images outside any class folder), in a fixed order, each real file once."""
    sources, seen, taken, strays = [], set(), set(), 0
    split_of = {}
    for raw in raws:
        check_apart(Path(raw), output)
        entries = list_tree(raw)
        check_spelling([entry for entry in entries if entry.class_name])
        split_of.setdefault(any(entry.split for entry in entries), raw)
        for entry in entries:
            path = os.path.join(raw, entry.path)
            if not entry.class_name:
                strays += is_image(path)
            elif (real := os.path.realpath(path)) not in seen:
                seen.add(real)
                target, stamp = target_of(entry, taken), stamp_of(path)
                sources.append(Source(path, entry.split, entry.class_name, target, stamp))
    if len(split_of) == 2:
        raise UsageError(f"{split_of[True]} has train/ and val/, {split_of[False]} has not: prepare them one by one")
    if not sources:
        raise UserError(f"{raws[0]}: no class folders; put pictures in {raws[0]}/<class>/")
    check_case({source.class_name for source in sources})
    return sources, strays


def stamp_of(path):
    try:
        status = os.stat(path)
    except OSError:  # gone since it was listed; what is wrong is told when it is read
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def check_case(classes):
    """Raise UserError where two classes would share a folder on a disk that takes upper for lower case."""
    names = {}
    for name in sorted(classes):
        if names.setdefault(name.casefold(), name) != name:
            raise UserError(f"classes {names[name.casefold()]} and {name} differ in case only: rename one of them")


def check_apart(raw, output):
    raw, output = raw.resolve(), output.resolve()
    if raw == output or raw in output.parents or output in raw.parents:
        raise UsageError(f"{raw} and {output} lie in one another: choose another --output")


def target_of(entry, taken):
    """train/ants/sub/a.png -> train/ants/sub-a.jpg, numbered where that name is taken."""
    parts = entry.path.split("/")
    stem = "-".join(parts[2 if entry.split else 1 :]).rsplit(".", 1)[0].lstrip(".")
    folder = "/".join(part for part in (entry.split, file_name(entry.class_name)) if part)
    number, target = 1, f"{folder}/{shorten(stem, '.jpg')}"
    while composed(target).casefold() in taken:
        number += 1
        target = f"{folder}/{shorten(stem, f'-{number}.jpg')}"
    taken.add(composed(target).casefold())
    return target


# --- Reading and writing, in worker processes ---


def process(sources, args, cache, title, done=0):
    """Read, and unless --report is on write, each source; the cache keeps what was found."""
    if not sources:
        return
    tasks = ((source.path, source.target) for source in sources)
    count = min(args.workers, len(sources))
    with (
        Workers("dataset.prepare:processor", args, count) as workers,
        progress(done + len(sources), args.quiet, initial=done, desc=title, unit="file") as bar,
    ):
        for source, info in zip(sources, workers.map(tasks), strict=True):
            cache.record(source, info, args)
            bar.update()


def processor(args):
    """Return a worker's function: (path, target) -> ImageInfo, after the image has been written."""

    def handle(task):
        path, target = task
        try:
            return read_and_write(path, args.output / target, args)
        except ImageError as error:
            return ImageInfo(error.reason, str(error).removeprefix(f"{path}: "))
        except MemoryError:
            return ImageInfo("too large", "not enough memory")
        except OSError as error:
            if disk_error(error):
                raise
            return ImageInfo("cannot be read", error_text(error))

    return handle


def read_and_write(path, target, args):
    image = read_rgb(path, args.max_megapixels * 1_000_000)
    if min(image.size) < args.min_size:
        return ImageInfo("too small", f"{image.width} x {image.height}")
    if not args.report:
        resized = resize_to_fit(image, args.size, args.fit)
        write_image(target, np.asarray(resized, np.float32), quality=args.quality)
    return describe(path, image)


def resize_to_fit(image, size, how):
    """Return a PIL image with its shorter side `size` (keep), or a square of that side (crop; pad with its mean)."""
    lanczos = Image.Resampling.LANCZOS
    if how == "crop":
        return ImageOps.fit(image, (size, size), lanczos)
    if how == "pad":
        mean = image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        return ImageOps.pad(image, (size, size), lanczos, mean)
    factor = size / min(image.size)
    return image.resize([max(size, round(side * factor)) for side in image.size], lanczos)


# --- What is left out ---


@dataclass(slots=True, frozen=True)
class LeftOut:
    reason: str
    detail: str = ""
    original: Source | None = None  # of a duplicate: what is kept instead


def choose(sources, cache, args):
    """Return {path: LeftOut} of all that is not kept."""
    left_out, usable = {}, []
    for source in sources:
        info = cache.info(source)
        if info.reason:
            left_out[source.path] = LeftOut(info.reason, info.detail)
        else:
            usable.append(source)
    images = [(cache.info(source), (source.split == "val", source.path)) for source in usable]
    for i, duplicate in find_duplicates(images, args.workers, args.quiet).items():
        source, original = usable[i], usable[duplicate.original]
        detail = ", ".join(filter(None, (duplicate.orientation, *places_apart(source, original))))
        left_out[source.path] = LeftOut(duplicate.reason, detail, original)
    return left_out


OTHER_CLASS, OTHER_SPLIT = "in another class", "in the other split"


def places_apart(source, original):
    """Return what the user should know of where a duplicate and its original lie."""
    if source.class_name != original.class_name:
        yield OTHER_CLASS
    if source.split != original.split:
        yield OTHER_SPLIT


# --- What the user sees ---


def write_report(path, sources, left_out):
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["picture", "class", "split", "reason", "detail", "twin"])
        for source in sources:
            if entry := left_out.get(source.path):
                original = entry.original.path if entry.original else ""
                writer.writerow([source.path, source.class_name, source.split, entry.reason, entry.detail, original])


def write_sheet(path, sources, left_out, args):
    """Write an image of what was left out, each beside its original, the near-duplicates first."""
    path.unlink(missing_ok=True)
    shown = [source for source in sources if source.path in left_out and left_out[source.path].reason in SHOWN_REASONS]
    shown.sort(key=lambda source: SHOWN_REASONS.index(left_out[source.path].reason))
    pairs = [(source, left_out[source.path]) for source in shown[: SHEET_ROWS * SHEET_COLUMNS]]
    if not pairs:
        return
    paths = [source.path for source, _ in pairs] + [entry.original.path for _, entry in pairs if entry.original]
    with Workers("dataset.prepare:thumbnailer", CELL, min(args.workers, len(paths))) as workers:
        thumbnails = dict(zip(paths, workers.map(paths), strict=True))
    cells = [pair_cell(source, entry, thumbnails) for source, entry in pairs]
    sheet, _ = plots.draw_grid(cells, SHEET_COLUMNS, (2 * CELL + 12, CELL + 36))
    write_image(path, np.asarray(sheet, np.float32), quality=85)


def pair_cell(source, entry, thumbnails):
    """Return what plots.draw_grid() draws of a source that is left out and its original."""
    cell = []
    for left, shown in ((0, source), (CELL + 2, entry.original)):
        if shown:
            small = thumbnails[shown.path]
            cell.append((left + (CELL - small.width) // 2, (CELL - small.height) // 2, small))
            name = f"{shown.class_name}/{Path(shown.path).name}"
            cell.append((left + 2, CELL, plots.shorten(name, 20, ".."), "black"))
    words = ", ".join(filter(None, (entry.reason, entry.detail)))
    return [*cell, (2, CELL + 14, plots.shorten(words, 44, ".."), "firebrick")]


def thumbnailer(side):
    """Return a worker's function: path -> PIL image of at most side x side."""

    def handle(path):
        try:
            image = read_rgb(path)
        except UserError:  # it has gone since
            return Image.new("RGB", (side, side), "grey")
        image.thumbnail((side, side))
        return image

    return handle


def print_table(sources, left_out, strays, args):
    """Print the images of each class, what was left out and why, and what to mind."""
    splits = sorted({source.split for source in sources})
    kept = Counter((source.class_name, source.split) for source in sources if source.path not in left_out)
    gone = Counter(source.class_name for source in sources if source.path in left_out)
    classes = sorted({source.class_name for source in sources})
    wide = max(len("class"), *map(len, classes))
    print(f"{'class':{wide}}", *(f"{split or 'pictures':>9}" for split in splits), f"{'left out':>9}")
    for name in classes:
        print(f"{name:{wide}}", *(f"{kept[name, split]:>9,}" for split in splits), f"{gone[name]:>9,}")
    totals = [sum(kept[name, split] for name in classes) for split in splits]
    print(f"{'total':{wide}}", *(f"{total:>9,}" for total in totals), f"{len(left_out):>9,}")

    for reason, count in Counter(entry.reason for entry in left_out.values()).most_common():
        print(f"left out: {count:,} {reason}")
    details = [entry.detail for entry in left_out.values() if entry.original]
    for place, advice in (
        (OTHER_CLASS, "look which class is right"),
        (OTHER_SPLIT, "validation would have seen what was trained on"),
    ):
        count = sum(place in detail for detail in details)
        if count:
            print(f"mind: {count:,} duplicates had their twin {place}: {advice}")
    if strays:
        print(f"mind: {strays:,} pictures lie in no class folder and were not read")
    sizes = {name: sum(kept[name, split] for split in splits if split != "val") for name in classes}
    print_sizes(sizes)
    if left_out:
        print(f"see {args.output / 'report.csv'}")


def print_faults(sources, left_out):
    """Print what is wrong with files that were meant to be images; returns the exit status, 1 if there are any."""
    faults = [source.path for source in sources if source.path in left_out and is_fault(source, left_out)]
    for path in faults[:NAMED]:
        print_error("prepare.py", f"{path}: {left_out[path].detail}", 1)
    if len(faults) > NAMED:
        print_error("prepare.py", f"{len(faults) - NAMED:,} more could not be read; see report.csv", 1)
    return 1 if faults else 0


def is_fault(source, left_out):
    """Return whether a file that is left out is a damaged image, rather than none, a small one or a duplicate."""
    reason = left_out[source.path].reason
    return reason in FAULTS or (reason == "not a picture" and Path(source.path).suffix.lower() in SUFFIXES)


def print_sizes(sizes):
    """Print what is wrong with the numbers of training images, {class: number}."""
    least, most = min(sizes.values()), max(sizes.values())
    if least and most > 1.5 * least:
        print(f"mind: the largest class has {most / least:.1f} times the pictures of the smallest")
    for name, size in sizes.items():
        if size < FEW:
            print(f"mind: class {name} has {size} pictures to train on; {FEW} is few")


if __name__ == "__main__":
    run(main)
