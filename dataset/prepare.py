"""Cleans a folder of gathered pictures for training.

    python dataset/prepare.py RAW... -o dataset/NAME

RAW holds RAW/<class>/* or RAW/train/<class>/* and RAW/val/<class>/*, folders nested as deep as they like; several RAWs
are merged. Every file is decoded to its last pixel. What is no whole picture is left out, and so are duplicates,
wherever the other copy lies: in the same class, in another, in the other split. The rest is written to dataset/NAME in
the same layout: upright, sRGB, the shorter side --size pixels, JPEG. The sources are only read.

Left in dataset/NAME besides the pictures: report.csv, one line for each file left out; left-out.jpg, a sheet of those
that can be shown, each beside its twin; and .prepare.sqlite, what is known of every source file, so that an
interrupted run goes on where it was and a later one reads only what is new or changed.

How duplicates are found: equal bytes; equal pixels; or a perceptual hash (ImageHash's phash, 64 bits: which of the
8 x 8 lowest frequencies of a DCT exceed their median) that differs in at most HASH_DISTANCE bits in any of the eight
orientations. A hash alone confuses some silhouettes, so the brightness of the two, shrunk to 16 x 16, must correlate
as well. That finds copies re-encoded, resized, stretched, mirrored, turned, greyed or brightened; not crops of more
than 1 or 2 %. Of twins the one with more pixels is kept, then the one in colour, then the one with more bytes, then the
one in train; of equal pixels the one with fewer bytes, for a JPEG saved as PNG only grows.
"""

import csv
import hashlib
import os
import sqlite3
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np

from dataset.cli import Parser, UsageError, UserError, log, progress, run
from dataset.files import atomic_write
from dataset.folder import list_tree
from dataset.images import SUFFIXES, PictureError, read_picture, write_image
from dataset.workers import Workers, cores

HASH_DISTANCE = 10  # bits of 64. Of the 18 million pairs of 6000 different photographs 72 were as near in some
CORRELATION = 0.95  # orientation, and 0.89 was the highest of their correlations; JPEG of quality 20 keeps 0.985
FLAT = 3.0  # levels: pictures whose brightness varies less have no pattern to correlate; their colours are compared

FEW = 20  # pictures in a class
SHEET_ROWS, SHEET_COLUMNS, CELL = 60, 4, 120  # of left-out.jpg; CELL in pixels, for each picture of a pair

ORIENTATIONS = (
    "",
    "mirrored",
    "upside down, mirrored",
    "upside down",
    "turned, mirrored",
    "turned",
    "turned",
    "turned, mirrored",
)


def parse(arguments=None):
    parser = Parser(
        prog="prepare.py", description="Clean a folder of pictures for training: broken ones and duplicates out."
    )
    parser.add_argument("raw", nargs="+", metavar="RAW", help="folder with RAW/<class>/* or RAW/train|val/<class>/*")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where to write, dataset/NAME say")
    parser.add_argument("--size", type=int, default=256, help="shorter side of what is written, pixels")
    parser.add_argument(
        "--fit",
        choices=("keep", "crop", "pad"),
        default="keep",
        help="keep the shape; crop to the central square; or pad to a square, then --size is the longer side",
    )
    parser.add_argument("--quality", type=int, default=92, help="of the JPEG files, 1 to 100")
    parser.add_argument("--min-size", type=int, default=32, help="leave out what has a shorter side, pixels")
    parser.add_argument("--max-megapixels", type=int, default=128, help="leave out what has more: decompression bombs")
    parser.add_argument("--report", action="store_true", help="only look and report; write no pictures")
    parser.add_argument(
        "--workers", type=int, default=cores(), help="processes that decode (default: one a core, %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    for name, low, high in (
        ("size", 16, 8192),
        ("quality", 1, 100),
        ("min_size", 1, 8192),
        ("max_megapixels", 1, 1000),
        ("workers", 1, 256),
    ):
        if not low <= getattr(options, name) <= high:
            parser.error(f"--{name.replace('_', '-')} must be {low} to {high}")
    return options


def main():
    options = parse()
    output = Path(options.output)
    sources, strays = list_sources(options.raw, output)
    began = time.perf_counter()
    with ScanCache(output) as journal:
        journal.plan(sources)
        todo = [source for source in sources if not journal.knows(source, options)]
        process(todo, options, journal, f"reading {len(sources):,} files", done=len(sources) - len(todo))
        left_out = decide(sources, journal, options)
        if not options.report:
            kept = [source for source in sources if source.path not in left_out]
            missing = [source for source in kept if not journal.has_written(source, options)]
            if missing:  # a run with --report, or with other options, or a copy that was the worse one until now
                process(missing, options, journal, "writing")
            journal.remove_all_but({source.target for source in kept})
        write_report(output / "report.csv", sources, left_out)
        draw_sheet(output / "left-out.jpg", sources, left_out, options)
    print_table(sources, left_out, strays, options)
    log(f"{output}: {len(sources) - len(left_out):,} pictures, {time.perf_counter() - began:.0f} s", options.quiet)
    if len(left_out) == len(sources):
        raise UserError(f"no picture is left; see {output / 'report.csv'}")


# What there is


@dataclass(slots=True, frozen=True)
class Source:
    path: str
    split: str  # "train", "val" or ""
    class_name: str
    target: str  # relative to the output
    stamp: str  # size and time of change: a file with another stamp is read again


def list_sources(raws, output):
    """(sources, number of pictures outside any class folder), in a fixed order, each real file once."""
    sources, seen, taken, strays = [], set(), set(), 0
    split_of = {}
    for raw in raws:
        check_apart(Path(raw), output)
        entries = list_tree(raw)
        split_of.setdefault(any(entry.split for entry in entries), raw)
        for entry in entries:
            path = os.path.join(raw, entry.path)
            if not entry.class_name:
                strays += Path(path).suffix.lower() in SUFFIXES
            elif (real := os.path.realpath(path)) not in seen:
                seen.add(real)
                status = os.stat(path)
                stamp = f"{status.st_size} {status.st_mtime_ns}"
                sources.append(Source(path, entry.split, entry.class_name, target_of(entry, taken), stamp))
    if len(split_of) == 2:
        raise UsageError(f"{split_of[True]} has train/ and val/, {split_of[False]} has not: prepare them one by one")
    if not sources:
        raise UserError(f"{raws[0]}: no class folders; put pictures in {raws[0]}/<class>/")
    names = {}
    for name in sorted({source.class_name for source in sources}):
        if names.setdefault(name.casefold(), name) != name:
            raise UserError(f"classes {names[name.casefold()]} and {name} differ in case only: rename one of them")
    return sources, strays


def check_apart(raw, output):
    raw, output = raw.resolve(), output.resolve()
    if raw == output or raw in output.parents or output in raw.parents:
        raise UsageError(f"{raw} and {output} lie in one another: choose another --output")


def target_of(entry, taken):
    """train/ants/sub/a.png -> train/ants/sub-a.jpg, numbered where that name is taken."""
    parts = entry.path.split("/")
    stem = "-".join(parts[2 if entry.split else 1 :]).rsplit(".", 1)[0].lstrip(".")
    folder = "/".join(part for part in (entry.split, entry.class_name) if part)
    number, target = 1, f"{folder}/{stem}.jpg"
    while target.casefold() in taken:
        number += 1
        target = f"{folder}/{stem}-{number}.jpg"
    taken.add(target.casefold())
    return target


# Reading and writing, in worker processes


@dataclass(slots=True)
class ImageInfo:
    """What reading a file told. Where it is no usable picture: a reason and a detail; otherwise the rest."""

    reason: str = ""
    detail: str = ""
    width: int = 0
    height: int = 0
    bytes: int = 0
    grey: int = 0  # 1 where there is no colour
    file_digest: bytes = b""
    pixel_digest: bytes = b""
    hashes: bytes = b""  # 8 uint64, one an orientation
    thumbnail: bytes = b""  # 16 x 16 x 3 uint8


def process(sources, options, journal, title, done=0):
    """Read, and unless --report is on write, each source; the journal keeps what was found."""
    if not sources:
        return
    tasks = ((source.path, source.target) for source in sources)
    count = min(options.workers, len(sources))
    with (
        Workers("dataset.prepare:processor", options, count) as workers,
        progress(done + len(sources), options.quiet, initial=done, desc=title, unit="file") as bar,
    ):
        for source, finding in zip(sources, workers.map(tasks), strict=True):
            journal.record(source, finding, options)
            bar.update()


def processor(options):
    """The workers' function: (path, target) -> ImageInfo, after the picture has been written."""

    def handle(task):
        path, target = task
        try:
            picture = read_picture(path, options.max_megapixels * 1_000_000)
        except PictureError as error:
            return ImageInfo(error.reason, str(error).removeprefix(f"{path}: "))
        except MemoryError:
            return ImageInfo("too large", "not enough memory to decode it")
        if min(picture.size) < options.min_size:
            return ImageInfo("too small", f"{picture.width} x {picture.height}")
        if not options.report:
            fitted = fit(picture, options.size, options.fit)
            write_image(Path(options.output) / target, np.asarray(fitted, np.float32), quality=options.quality)
        return describe(path, picture)

    return handle


def fit(picture, size, how):
    """A PIL image with its shorter side `size` (keep), or a square of that side (crop, pad with its mean colour)."""
    from PIL import Image, ImageOps

    filter = Image.Resampling.LANCZOS
    if how == "crop":
        return ImageOps.fit(picture, (size, size), filter)
    if how == "pad":
        mean = picture.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        return ImageOps.pad(picture, (size, size), filter, mean)
    factor = size / min(picture.size)
    return picture.resize([max(size, round(side * factor)) for side in picture.size], filter)


def describe(path, picture):
    from PIL import Image

    thumbnail = shrink(picture, 64)
    colours = np.asarray(thumbnail, np.int16)
    return ImageInfo(
        width=picture.width,
        height=picture.height,
        bytes=os.path.getsize(path),
        grey=int(np.ptp(colours, axis=2).max() <= 2),
        file_digest=digest(path),
        pixel_digest=hashlib.blake2b(picture.tobytes(), digest_size=16, key=b"%dx%d" % picture.size).digest(),
        hashes=np.array([hash_of(turned) for turned in orientations(thumbnail)], np.uint64).tobytes(),
        thumbnail=thumbnail.resize((16, 16), Image.Resampling.BOX).tobytes(),
    )


def digest(path):
    total = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.digest()


def shrink(picture, side):
    from PIL import Image

    larger = min(picture.size) >= 2 * side
    return picture.resize((side, side), Image.Resampling.BOX if larger else Image.Resampling.LANCZOS)


def orientations(picture):
    """A PIL image in its eight orientations, in the order of ORIENTATIONS."""
    from PIL.Image import Transpose as T

    turns = (T.FLIP_LEFT_RIGHT, T.FLIP_TOP_BOTTOM, T.ROTATE_180, T.TRANSPOSE, T.ROTATE_90, T.ROTATE_270, T.TRANSVERSE)
    return [picture, *(picture.transpose(turn) for turn in turns)]


def hash_of(picture):
    from imagehash import phash

    return np.packbits(phash(picture).hash.ravel()).view(np.uint64)[0]


# What has been found


class ScanCache:
    """.prepare.sqlite in the output folder: findings about source files, and the names of files written there."""

    def __init__(self, output):
        self.output, path = output, output / ".prepare.sqlite"
        if output.is_dir() and any(output.iterdir()) and not path.exists():
            raise UserError(f"{output}: holds files that prepare.py did not write; choose another --output")
        output.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(path)
        self.saved = time.monotonic()
        fields = ", ".join(ImageInfo.__slots__)
        try:
            self.database.execute(f"create table if not exists findings (path primary key, stamp, {fields})")
            self.database.execute("create table if not exists written (target primary key, path, stamp)")
        except sqlite3.DatabaseError:
            raise UserError(f"{path}: damaged; delete {output} and run again") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.database.commit()
        self.database.close()

    def plan(self, sources):
        """Note the names before anything is written under them, so that remove_all_but() finds it after any crash."""
        rows = ((source.target,) for source in sources)
        self.database.executemany("insert or ignore into written (target) values (?)", rows)
        self.database.commit()

    def knows(self, source, options):
        """Whether the file need not be read. What was left out is read again: pillow-heif may be there by now."""
        return self.read(source, "stamp", "reason") == (finding_stamp(source, options), "")

    def record(self, source, finding, options):
        values = (
            key(source),
            finding_stamp(source, options),
            *(getattr(finding, field) for field in ImageInfo.__slots__),
        )
        marks = ", ".join("?" * len(values))
        self.database.execute(f"insert or replace into findings values ({marks})", values)
        if not options.report and not finding.reason:
            row = (source.target, key(source), output_stamp(source, options))
            self.database.execute("insert or replace into written values (?, ?, ?)", row)
        if time.monotonic() - self.saved > 2:
            self.database.commit()
            self.saved = time.monotonic()

    def has_written(self, source, options):
        row = self.database.execute("select path, stamp from written where target = ?", (source.target,)).fetchone()
        return row == (key(source), output_stamp(source, options)) and (self.output / source.target).exists()

    def read(self, source, *fields):
        query = f"select {', '.join(fields)} from findings where path = ?"
        return self.database.execute(query, (key(source),)).fetchone()

    def remove_all_but(self, targets):
        """Remove what this or an earlier run wrote and is not among `targets`, and folders left empty."""
        for (target,) in self.database.execute("select target from written").fetchall():
            if target not in targets:
                (self.output / target).unlink(missing_ok=True)
                self.database.execute("delete from written where target = ?", (target,))
        for folder, _, files in os.walk(self.output, topdown=False):
            for name in files:
                if name.startswith(".") and name.endswith(".jpg"):  # atomic_write's, of a process that was killed
                    os.unlink(os.path.join(folder, name))
            if Path(folder) != self.output and not os.listdir(folder):
                os.rmdir(folder)


def key(source):
    return os.path.abspath(source.path)


def finding_stamp(source, options):
    return f"{source.stamp} {options.min_size} {options.max_megapixels}"


def output_stamp(source, options):
    return f"{source.stamp} {options.size} {options.fit} {options.quality}"


# What is left out


@dataclass(slots=True, frozen=True)
class LeftOut:
    reason: str
    detail: str = ""
    twin: Source | None = None


def decide(sources, journal, options):
    """{path: LeftOut} of all that is not kept."""
    left_out, pictures = {}, []
    for source in sources:
        row = journal.read(source, "reason", "detail", "width * height", "grey", "bytes")
        if row[0]:
            left_out[source.path] = LeftOut(*row[:2])
        else:
            pictures.append((source, *row[2:]))

    def best(picture):
        source, pixels, grey, count = picture
        return -pixels, grey, -count, source.split == "val", source.path

    def lightest(picture):
        source, _, _, count = picture
        return count, source.split == "val", source.path

    for field, reason in (("file_digest", "identical file"), ("pixel_digest", "identical pixels")):
        first, distinct = {}, []
        for picture in sorted(pictures, key=lightest):
            source = picture[0]
            twin = first.setdefault(journal.read(source, field), source)
            if twin is source:
                distinct.append(picture)
            else:
                left_out[source.path] = LeftOut(reason, where(source, twin), twin)
        pictures = distinct
    best_first = [source for source, *_ in sorted(pictures, key=best)]
    for source, twin, orientation in near_twins(best_first, journal, options):
        detail = ", ".join(filter(None, (ORIENTATIONS[orientation], where(source, twin))))
        left_out[source.path] = LeftOut("near-duplicate", detail, twin)
    return left_out


def where(source, twin):
    """What matters of where two twins lie."""
    places = []
    if source.class_name != twin.class_name:
        places.append("in another class")
    if source.split != twin.split:
        places.append("in the other split")
    return ", ".join(places)


def near_twins(sources, journal, options):
    """[(worse, better, orientation)] of `sources`, best first: every one that looks like a better one that is kept."""
    if len(sources) < 2:
        return []
    hashes = np.frombuffer(b"".join(journal.read(source, "hashes")[0] for source in sources), np.uint64).reshape(-1, 8)
    blocks = [(start, min(start + 64, len(hashes))) for start in range(0, len(hashes), 64)]
    twins, gone = [], set()
    count = min(options.workers, -(-len(blocks) // 16))
    with (
        Workers("dataset.prepare:searcher", hashes, count) as workers,
        progress(len(hashes), options.quiet, desc="comparing", unit="file") as bar,
    ):
        for (start, stop), candidates in zip(blocks, workers.map(blocks), strict=True):
            for worse, better, orientation in candidates:
                if worse in gone or better in gone:
                    continue
                if alike(thumbnail(journal, sources[worse]), thumbnail(journal, sources[better]), orientation):
                    twins.append((sources[worse], sources[better], orientation))
                    gone.add(worse)
            bar.update(stop - start)
    return twins


def searcher(hashes):
    """The workers' function: (start, stop) -> [(i, j, orientation)] for i in that range and all j < i near to it, by i,
    then the nearest first, by orientation."""
    upright, step = hashes[:, 0].copy(), 8192  # so many at a time stay in the processor's cache

    def handle(task):
        found = []
        for i in range(*task):
            near = []
            for start in range(0, i, step):
                distances = np.bitwise_count(upright[start : min(start + step, i)] ^ hashes[i][:, None])
                for place in np.flatnonzero(distances <= HASH_DISTANCE):
                    orientation, j = divmod(int(place), distances.shape[1])
                    near.append((int(distances[orientation, j]), orientation, start + j))
            found += [(i, j, orientation) for _, orientation, j in sorted(near)]
        return found

    return handle


def thumbnail(journal, source):
    return np.frombuffer(journal.read(source, "thumbnail")[0], np.uint8).reshape(16, 16, 3).astype(np.float32)


def alike(worse, better, orientation):
    """Whether two 16 x 16 thumbnails, the first one turned as ORIENTATIONS says, show the same."""
    worse = orientations_of_array(worse)[orientation]
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    a, b = (image @ luma for image in (worse, better))
    a, b = a - a.mean(), b - b.mean()
    if min(a.std(), b.std()) < FLAT:
        return bool(np.abs(worse - better).mean() < FLAT)
    return float((a * b).mean()) >= CORRELATION * a.std() * b.std()


def orientations_of_array(image):
    """As orientations(), of an array H x W x 3."""
    turned = image.transpose(1, 0, 2)
    return [
        image,
        image[:, ::-1],
        image[::-1],
        image[::-1, ::-1],
        turned,
        turned[::-1],
        turned[:, ::-1],
        turned[::-1, ::-1],
    ]


# What the user sees


def write_report(path, sources, left_out):
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["picture", "class", "split", "reason", "detail", "twin"])
        for source in sources:
            if entry := left_out.get(source.path):
                twin = entry.twin.path if entry.twin else ""
                writer.writerow([source.path, source.class_name, source.split, entry.reason, entry.detail, twin])


def draw_sheet(path, sources, left_out, options):
    """The left-out pictures, each beside its twin: near-duplicates first, they are the ones to look at."""
    from PIL import Image, ImageDraw, ImageFont

    ranks = ["near-duplicate", "too small", "identical pixels", "identical file"]
    shown = [source for source in sources if source.path in left_out and left_out[source.path].reason in ranks]
    shown.sort(key=lambda source: ranks.index(left_out[source.path].reason))
    shown = shown[: SHEET_ROWS * SHEET_COLUMNS]
    path.unlink(missing_ok=True)
    if not shown:
        return
    columns = min(SHEET_COLUMNS, len(shown))
    width, height = 2 * CELL + 12, CELL + 36
    sheet = Image.new("RGB", (columns * width, -(-len(shown) // columns) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    paths = [(source.path, left_out[source.path].twin) for source in shown]
    paths = [path for path, _ in paths] + [twin.path for _, twin in paths if twin]
    with Workers("dataset.prepare:thumbnailer", CELL, min(options.workers, len(paths))) as workers:
        thumbnails = dict(zip(paths, workers.map(paths), strict=True))
    for number, source in enumerate(shown):
        x, y = number % columns * width, number // columns * height
        entry = left_out[source.path]
        for offset, picture in ((0, source), (CELL + 2, entry.twin)):
            if picture:
                small = thumbnails[picture.path]
                sheet.paste(small, (x + offset + (CELL - small.width) // 2, y + (CELL - small.height) // 2))
                draw.text(
                    (x + offset + 2, y + CELL),
                    shorten(picture.class_name + "/" + Path(picture.path).name),
                    "black",
                    font,
                )
        draw.text(
            (x + 2, y + CELL + 14),
            shorten(", ".join(filter(None, (entry.reason, entry.detail))), 44),
            "firebrick",
            font,
        )
    write_image(path, np.asarray(sheet, np.float32), quality=85)


def thumbnailer(side):
    from PIL import Image

    def handle(path):
        try:
            picture = read_picture(path)
        except UserError:  # it has gone since
            return Image.new("RGB", (side, side), "grey")
        picture.thumbnail((side, side))
        return picture

    return handle


def shorten(text, length=20):
    return text if len(text) <= length else text[: length - 2] + ".."


def print_table(sources, left_out, strays, options):
    """Pictures a class, what was left out and why, and what to mind."""
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
    twins = [entry for entry in left_out.values() if entry.twin]
    for place, advice in (
        ("in another class", "look which class is right"),
        ("in the other split", "validation would have seen what was trained on"),
    ):
        count = sum(place in entry.detail for entry in twins)
        if count:
            print(f"mind: {count:,} duplicates had their twin {place}: {advice}")
    if strays:
        print(f"mind: {strays:,} pictures lie in no class folder and were not read")
    sizes = [sum(kept[name, split] for split in splits if split != "val") for name in classes]
    if min(sizes) and max(sizes) > 1.5 * min(sizes):
        print(f"mind: the largest class has {max(sizes) / min(sizes):.1f} times the pictures of the smallest")
    for name, size in zip(classes, sizes, strict=True):
        if size < FEW:
            print(f"mind: class {name} has {size} pictures to train on; {FEW} is few")
    if left_out:
        print(f"see {Path(options.output) / 'report.csv'}")


if __name__ == "__main__":
    run(main)
