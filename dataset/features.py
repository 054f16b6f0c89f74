"""What the frozen part of a network makes of each picture: computed once, kept on disk, served in batches.

With most of a network frozen and no augmentation but flips, every epoch would compute the same again.
"""

import contextlib
import dataclasses
import hashlib
import io
import os
import shutil
import time
from pathlib import Path

import numpy as np

from dataset.augment import Augmentation
from dataset.cli import UserError, progress
from dataset.files import atomic_write, check_place
from dataset.loader import Loader, Plan
from dataset.npz import map_npy, npy

HALF_MAX = 65504.0  # float16's
KEPT_DAYS = 30  # without use
HEADER = 8192  # bytes for the header, and for what disks round up


def compute_features(folder, network, size, views, file, *, batch_size=32, optional=False, quiet=False, **options):
    """Features of every picture of an ImageFolder: float16 (N, views, ...), mapped from `file`, where they stay.

    network: images float32 (n, size, size, 3), RGB 0..255 -> features (n, ...). views: 1, the picture's centre; or 2,
    its mirror image as well. `options` go to the Loader. Rows of pictures that cannot be read are NaN.
    A file that is there already is used, if it is whole: its name has to tell what it was made of (see fingerprint()).
    What lay beside it unused for KEPT_DAYS makes room for a new one. UserError where the disk has too little; but if
    `optional`, they are not kept where they cannot be, and come from memory.
    """
    file = Path(file)
    kept = kept_features(file, len(folder), views)
    if kept is not None:
        return kept
    remove_unused(file.parent)
    numbered = dataclasses.replace(folder, labels=np.arange(len(folder), dtype=np.int32))  # labels tell which is which
    with (
        progress(len(folder), quiet, desc="features", unit="picture") as bar,
        Loader(numbered, batch_size, size, **options) as loader,
        contextlib.ExitStack() as stack,
    ):
        done, blank, out = 0, None, None
        for images, indices in loader.epoch():
            pair = [images, np.ascontiguousarray(images[:, :, ::-1])][:views]
            rows = np.stack([clip(network(side)) for side in pair], axis=1)
            if out is None:
                blank = np.full(rows.shape[1:], np.nan, np.float16)
                out = stack.enter_context(features_file(file, (len(folder), *blank.shape), optional))
            for row, index in zip(rows, indices, strict=True):
                while done < index:  # pictures that were skipped
                    out.write(blank.tobytes())
                    done += 1
                out.write(row.tobytes())
                done += 1
            bar.update(len(indices))
        for _ in range(done, len(folder)):
            out.write(blank.tobytes())
    return npy(out.getvalue(), file) if isinstance(out, io.BytesIO) else map_npy(file)


def kept_features(file, count, views):
    """Return the features in a file, or None where there is none, or none that is whole."""
    try:
        features = map_npy(file)
        fits = features.dtype == np.float16 and features.ndim > 2 and features.shape[:2] == (count, views)
        with contextlib.suppress(OSError):  # on a disk that is read-only
            file.touch()
    except (OSError, UserError):
        return None
    return features if fits else None


def remove_unused(folder):
    """Features that no run has used for KEPT_DAYS: they are large, and soon computed again."""
    for file in folder.glob("*.npy"):
        if time.time() - file.stat().st_mtime > KEPT_DAYS * 86400:
            with contextlib.suppress(OSError):
                file.unlink()


def clip(features):
    return np.clip(np.asarray(features, np.float32), -HALF_MAX, HALF_MAX).astype(np.float16)


@contextlib.contextmanager
def features_file(file, shape, optional):
    """Yield what features of a shape are written to, begun with the header of a .npy file: `file`, whole or not at all.

    Where they cannot be kept, it is memory if `optional`; UserError if the disk has no room for them otherwise.
    """
    needed = 2 * int(np.prod(shape)) + HEADER
    if optional and not may_write(file, needed):
        out = io.BytesIO()
        write_header(out, shape)
        yield out
        return
    with atomic_write(file) as temporary, open(temporary, "wb") as out:
        free = shutil.disk_usage(file.parent).free
        if needed > free:
            raise UserError(
                f"{file.parent}: the features take {needed / 1e9:.1f} GB and there are {free / 1e9:.1f}: make room"
            )
        write_header(out, shape)
        yield out


def write_header(out, shape):
    np.lib.format.write_array_header_1_0(out, {"descr": "<f2", "fortran_order": False, "shape": shape})


def may_write(file, needed):
    """Tell whether so many bytes can be written to a file."""
    try:
        check_place(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(file.parent).free >= needed
    except (OSError, UserError):
        return False


def fingerprint(folder, arrays, *settings):
    """A short name for features, of the pictures' paths, sizes and times, the weights {path: array} and settings."""
    digest = hashlib.sha256(repr(settings).encode())
    for path in folder.paths:
        try:
            stat = os.stat(path)
            state = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:  # gone since it was listed; that is told when it is read
            state = "gone"
        digest.update(os.fsencode(f"{path} {state}\n"))
    for path in sorted(arrays):
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(arrays[path]))
    return digest.hexdigest()[:20]


class FeatureLoader:
    """Serves features as dataset.Loader serves pictures: the same epochs, the same share for each process.

    features: (N, views, ...), from compute_features(). With an `augmentation` an epoch is a shuffle in full batches,
    and its `flip` the probability of the mirror image; without, it is every picture once.
    """

    def __init__(self, folder, features, batch_size, augmentation=None, *, seed=0, rank=0, world_size=1):
        first = features.reshape(len(features), -1)[:, 0]
        self.rows = np.flatnonzero(~np.isnan(first))
        if not len(self.rows):
            raise UserError("no picture of the set can be read")
        self.folder, self.features = folder, features
        paths = tuple(folder.paths[i] for i in self.rows)
        self.plan = Plan(paths, batch_size, 0, augmentation, seed, rank, world_size)
        self.data_seconds = 0.0
        self.broken = dict.fromkeys(set(folder.paths) - set(paths), "it cannot be read")

    def __len__(self):
        return self.plan.steps

    def epoch(self, epoch=0, start=0):
        """Yields (features, labels): float16 (N, ...) and int32 (N,), from batch `start` on."""
        plan, order = self.plan, self.plan.order(epoch)
        flip = plan.augmentation.flip if plan.augmentation else 0.0
        for step in range(start, plan.steps):
            began = time.perf_counter()
            places = np.array(plan.rows(epoch, step))
            rows = self.rows[order[places]]
            draws = [
                np.random.default_rng((plan.seed, epoch, p * plan.world_size + plan.rank)).random() for p in places
            ]
            batch = self.features[rows, (np.array(draws) < flip).astype(int)]
            self.data_seconds += time.perf_counter() - began
            yield batch, self.folder.labels[rows]

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def flips_only(flip):
    """The one augmentation that features can be kept under."""
    return Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=flip)
