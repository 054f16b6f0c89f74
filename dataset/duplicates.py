"""Find duplicate images: equal bytes, equal pixels, or a near copy.

A near copy has a perceptual hash (ImageHash's phash, 64 bits: which of the 8 x 8 lowest frequencies of a DCT exceed
their median) that differs in at most HASH_DISTANCE bits in any of the eight orientations. A hash alone confuses some
silhouettes, so the brightness of the two, shrunk to 16 x 16, must correlate as well. That finds copies re-encoded,
resized, stretched, mirrored, turned, greyed or brightened; not crops of more than 1 or 2 %.
"""

import hashlib
import os
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.Image import Transpose

from dataset.cli import progress
from dataset.color import LUMA
from dataset.files import file_digest
from dataset.workers import Workers

HASH_DISTANCE = 10  # bits of 64. Of the 18 million pairs of 6000 different photographs 72 were as near in some
CORRELATION = 0.95  # orientation, and 0.89 was the highest of their correlations; JPEG of quality 20 keeps 0.985
FLAT = 3.0  # levels: images whose brightness varies less have no pattern to correlate; their colors are compared
BLOCK = 64  # images that a worker compares with all earlier ones in one task
CACHED = 8192  # hashes that stay in the processor's cache while they are compared

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


# --- What is compared ---


@dataclass(slots=True)
class ImageInfo:
    """What reading a file told. Where it is no usable image: a reason and a detail; otherwise the rest."""

    reason: str = ""
    detail: str = ""
    width: int = 0
    height: int = 0
    bytes: int = 0
    grey: int = 0  # 1 where there is no color
    file_digest: bytes = b""
    pixel_digest: bytes = b""
    hashes: bytes = b""  # 8 uint64, one an orientation
    thumbnail: bytes = b""  # 16 x 16 x 3 uint8


def describe(path, image):
    """Return the ImageInfo of a file and the PIL image, RGB, that was read from it."""
    thumbnail = resize_to_square(image, 64)
    levels = np.asarray(thumbnail, np.int16)
    pixels = hashlib.blake2b(image.tobytes(), digest_size=16, key=b"%dx%d" % image.size)
    return ImageInfo(
        width=image.width,
        height=image.height,
        bytes=os.path.getsize(path),
        grey=int(np.ptp(levels, axis=2).max() <= 2),
        file_digest=file_digest(path, hashlib.blake2b(digest_size=16)).digest(),
        pixel_digest=pixels.digest(),
        hashes=np.array([perceptual_hash(turned) for turned in orientations(thumbnail)], np.uint64).tobytes(),
        thumbnail=thumbnail.resize((16, 16), Image.Resampling.BOX).tobytes(),
    )


def resize_to_square(image, side):
    larger = min(image.size) >= 2 * side
    return image.resize((side, side), Image.Resampling.BOX if larger else Image.Resampling.LANCZOS)


def orientations(image):
    """Return a PIL image in its eight orientations, in the order of ORIENTATIONS."""
    turns = (
        *(Transpose.FLIP_LEFT_RIGHT, Transpose.FLIP_TOP_BOTTOM, Transpose.ROTATE_180),
        *(Transpose.TRANSPOSE, Transpose.ROTATE_90, Transpose.ROTATE_270, Transpose.TRANSVERSE),
    )
    return [image, *(image.transpose(turn) for turn in turns)]


def orientations_of_array(image):
    """Return an array H x W x 3 in its eight orientations, as orientations()."""
    turned = image.transpose(1, 0, 2)
    return [
        *(image, image[:, ::-1], image[::-1], image[::-1, ::-1]),
        *(turned, turned[::-1], turned[:, ::-1], turned[::-1, ::-1]),
    ]


def perceptual_hash(image):
    from imagehash import phash  # 0.3 s

    return np.packbits(phash(image).hash.ravel()).view(np.uint64)[0]


# --- The search ---


@dataclass(frozen=True)
class Duplicate:
    """An image that is left out: why, how it is turned, and the index of the original that is kept instead."""

    original: int
    reason: str  # "identical file", "identical pixels" or "near-duplicate"
    orientation: str = ""  # one of ORIENTATIONS


def find_duplicates(images, workers, quiet=False):
    """Return {index: Duplicate} of all `images`, [(ImageInfo, tie)], that have a better copy among them.

    Of near copies the one with more pixels is kept, then the one in color, then the one with more bytes; of equal
    pixels the one with fewer bytes, for a JPEG saved as PNG only grows; then the one with the lower tie.
    workers: processes that compare.
    """

    def fewest_bytes(i):
        info, tie = images[i]
        return info.bytes, tie

    def best(i):
        info, tie = images[i]
        return -info.width * info.height, info.grey, -info.bytes, tie

    found, distinct = {}, range(len(images))
    for field, reason in (("file_digest", "identical file"), ("pixel_digest", "identical pixels")):
        first = {}
        for i in sorted(distinct, key=fewest_bytes):
            original = first.setdefault(getattr(images[i][0], field), i)
            if original != i:
                found[i] = Duplicate(original, reason)
        distinct = list(first.values())
    distinct.sort(key=best)
    for worse, better, orientation in near_duplicates([images[i][0] for i in distinct], workers, quiet):
        found[distinct[worse]] = Duplicate(distinct[better], "near-duplicate", ORIENTATIONS[orientation])
    return found


def near_duplicates(infos, workers, quiet):
    """Return [(worse, better, orientation)], indices into `infos`, best first, of all that look like a kept one."""
    if len(infos) < 2:
        return []
    hashes = np.frombuffer(b"".join(info.hashes for info in infos), np.uint64).reshape(-1, 8)
    blocks = [(start, min(start + BLOCK, len(hashes))) for start in range(0, len(hashes), BLOCK)]
    found, gone = [], set()
    with (
        Workers("dataset.duplicates:searcher", hashes, min(workers, -(-len(blocks) // 16))) as processes,
        progress(len(hashes), quiet, desc="comparing", unit="file") as bar,
    ):
        for (start, stop), candidates in zip(blocks, processes.map(blocks), strict=True):
            for worse, better, orientation in candidates:
                if worse in gone or better in gone:
                    continue
                if is_duplicate(thumbnail_of(infos[worse]), thumbnail_of(infos[better]), orientation):
                    found.append((worse, better, orientation))
                    gone.add(worse)
            bar.update(stop - start)
    return found


def searcher(hashes):
    """Return a worker's function: (start, stop) -> [(i, j, orientation)] of each i in that range and each j < i whose
    hash is near, by i, then the nearest first, then by orientation."""
    upright = hashes[:, 0].copy()

    def search(task):
        found = []
        for i in range(*task):
            near = []
            for start in range(0, i, CACHED):
                distances = np.bitwise_count(upright[start : min(start + CACHED, i)] ^ hashes[i][:, None])
                for place in np.flatnonzero(distances <= HASH_DISTANCE):
                    orientation, j = divmod(int(place), distances.shape[1])
                    near.append((int(distances[orientation, j]), orientation, start + j))
            found += [(i, j, orientation) for _, orientation, j in sorted(near)]
        return found

    return search


def thumbnail_of(info):
    return np.frombuffer(info.thumbnail, np.uint8).reshape(16, 16, 3).astype(np.float32)


def is_duplicate(worse, better, orientation):
    """Return whether two 16 x 16 x 3 thumbnails, the first turned as ORIENTATIONS says, show the same."""
    worse = orientations_of_array(worse)[orientation]
    a, b = (image @ LUMA for image in (worse, better))
    a, b = a - a.mean(), b - b.mean()
    if min(a.std(), b.std()) < FLAT:
        return bool(np.abs(worse - better).mean() < FLAT)
    return float((a * b).mean()) >= CORRELATION * a.std() * b.std()
