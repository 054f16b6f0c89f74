"""Batches of an ImageFolder, decoded and augmented ahead of time in worker processes."""

import threading
import time
from collections import deque
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from dataset.augment import Augmentation, center_crop
from dataset.cli import UserError, log
from dataset.images import read_image, read_rgb, to_uint8
from dataset.workers import Workers, cores


class Loader:
    """Iterates over an ImageFolder; see dataset/__init__.py for how it is used.

    With an `augmentation` (training) an epoch is a shuffle of the folder in full batches, the rest of it dropped;
    without (evaluation) it is every picture once, in order. `size`: side of the square images, pixels. `rank` of
    `world_size` processes that train together takes its share of each epoch, equally long for all when training.
    `workers`: processes (None: all cores but one, at most 8). `prefetch`: batches kept ready. `report`: called with one
    line for each picture that cannot be read, or is smaller than `least_side` pixels.

    Attributes: `data_seconds`, seconds that epoch() has waited for batches; `broken`, {path: what is wrong with it}.
    Close it, or use it in a `with`.
    """

    def __init__(
        self,
        folder,
        batch_size,
        size,
        augmentation=None,
        *,
        seed=0,
        rank=0,
        world_size=1,
        workers=None,
        prefetch=4,
        report=log,
        least_side=0,
    ):
        if len(folder) < (world_size if augmentation else 1):
            raise UserError(f"{len(folder)} pictures are too few for {world_size} processes")
        self.folder, self.report, self.prefetch = folder, report, prefetch
        self.plan = Plan(folder.paths, batch_size, size, augmentation, seed, rank, world_size, least_side)
        self.workers = Workers("dataset.loader:decoder", self.plan, workers or min(8, max(1, cores() - 1)))
        self.data_seconds, self.broken = 0.0, {}
        self.stream = None

    def __len__(self):
        """Batches in an epoch."""
        return self.plan.steps

    def epoch(self, epoch=0, start=0):
        """Yields (images, labels): float32 (N, size, size, 3) RGB 0..255 and int32 (N,), from batch `start` on.

        The batches after the last one, the next epoch's, are already being made when it ends.
        """
        if self.stream is None or self.stream.next != (epoch, start):
            self.stop()
            self.stream = Stream(self.workers, self.plan, epoch, start, self.prefetch)
        for _ in range(start, len(self)):
            began = time.perf_counter()
            pixels, indices, broken = self.stream.take()
            self.data_seconds += time.perf_counter() - began
            for path, line in broken:
                if path not in self.broken:
                    self.broken[path] = line
                    self.report(f"{line}; it is skipped")
            if len(indices):
                yield pixels, self.folder.labels[indices]
            elif self.plan.augmentation or len(self.broken) == len(self.folder):
                raise UserError("no picture of the set can be read")

    def stop(self):
        if self.stream:
            self.stream.stop()
            self.stream = None

    def close(self):
        self.workers.close()  # first: it ends the stream's wait for them
        self.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Stream:
    """A thread that asks the workers for batch after batch, a few ahead, and puts each together."""

    def __init__(self, workers, plan, epoch, start, prefetch):
        self.workers, self.plan = workers, plan
        self.next = (epoch, start)  # what take() will return
        self.ready, self.room = SimpleQueue(), threading.Semaphore(prefetch)
        self.stopping = False
        self.thread = threading.Thread(target=self.run, args=(epoch, start), daemon=True)
        self.thread.start()

    def take(self):
        batch = self.ready.get()
        if isinstance(batch, BaseException):
            self.workers.close()  # their answers may be out of step
            raise batch
        self.room.release()
        self.next = self.plan.after(*self.next)
        return batch

    def stop(self):
        self.stopping = True
        self.room.release()
        self.thread.join()

    def run(self, epoch, step):
        asked = deque()
        try:
            while not self.stopping:
                # two under way, so that no worker rests while a batch is put together
                while len(asked) < 2:
                    for worker in range(len(self.workers)):
                        self.workers.send(worker, (epoch, step, worker, len(self.workers)))
                    asked.append((epoch, step))
                    epoch, step = self.plan.after(epoch, step)
                self.room.acquire()
                if not self.stopping:
                    self.ready.put(self.batch(asked.popleft()))
            for _ in asked:  # answers that nobody wants any more
                self.answers()
        except Exception as error:  # it belongs to whoever is waiting in take()
            self.ready.put(error)

    def answers(self):
        return [self.workers.receive(worker) for worker in range(len(self.workers))]

    def batch(self, position):
        """(pixels, indices, broken), the rows in the order of the plan."""
        rows = len(self.plan.rows(*position))
        pixels = np.empty((rows, self.plan.size, self.plan.size, 3), np.float32)
        indices, broken = np.full(rows, -1), []
        for worker, (decoded, used, errors) in enumerate(self.answers()):
            pixels[worker :: len(self.workers)] = decoded
            indices[worker :: len(self.workers)] = used
            broken += errors
        whole = indices >= 0
        return (pixels, indices, broken) if whole.all() else (pixels[whole], indices[whole], broken)


@dataclass(frozen=True)
class Plan:
    """Which picture goes where in which batch: the same in every process."""

    paths: tuple
    batch_size: int
    size: int
    augmentation: Augmentation | None
    seed: int
    rank: int
    world_size: int
    least_side: int = 0

    def order(self, epoch):
        """Indices into `paths`, as this rank sees them in this epoch."""
        if self.augmentation is None:
            return np.arange(self.rank, len(self.paths), self.world_size)
        shuffled = np.random.default_rng((self.seed, epoch)).permutation(len(self.paths))
        return shuffled[self.rank :: self.world_size][: len(self.paths) // self.world_size]

    def rows(self, epoch, step):
        """Places in the order that make up a batch."""
        return range(step * self.batch_size, min((step + 1) * self.batch_size, self.length))

    @property
    def length(self):
        if self.augmentation is None:
            return len(range(self.rank, len(self.paths), self.world_size))
        return len(self.paths) // self.world_size

    @property
    def steps(self):
        if self.augmentation is None:
            return -(-self.length // self.batch_size)
        return max(1, self.length // self.batch_size)

    def after(self, epoch, step):
        return (epoch, step + 1) if step + 1 < self.steps else (epoch + 1, 0)


def decoder(plan):
    """A worker's function: (epoch, step, worker, workers) -> its rows of the batch, worker, worker + workers, ..."""
    epoch_now, order = None, None

    def decode(task):
        nonlocal epoch_now, order
        epoch, step, worker, workers = task
        if epoch != epoch_now:
            epoch_now, order = epoch, plan.order(epoch)
        places = plan.rows(epoch, step)[worker::workers]
        pixels = np.zeros((len(places), plan.size, plan.size, 3), np.uint8)
        used, errors = [], []
        for row, place in enumerate(places):
            image, index = read_at(plan, order, place, errors)
            used.append(index)
            if image is None:
                continue
            if plan.augmentation is None:
                image = center_crop(image, plan.size)
            else:
                rng = np.random.default_rng((plan.seed, epoch, place * plan.world_size + plan.rank))
                image = plan.augmentation(image, rng, plan.size)
            pixels[row] = to_uint8(image)
        return pixels, used, errors

    return decode


def read_at(plan, order, place, errors):
    """(image, index) at a place of the order; when training, of the first readable picture from there on."""
    for offset in range(len(order) if plan.augmentation else 1):
        index = order[(place + offset) % len(order)]
        try:
            image = read_image(plan.paths[index])
            if min(image.shape[:2]) < plan.least_side:
                size = f"{image.shape[1]} x {image.shape[0]} pixels"
                raise UserError(f"{plan.paths[index]}: {size} are too few, {plan.least_side} a side are needed")
            return image, index
        except UserError as error:
            errors.append((plan.paths[index], str(error)))
    return None, -1


def pixel_reader(_):
    """Return a worker's function: path -> (None or why it cannot be read, its pixels, uint8 N x 3)."""

    def read(path):
        try:
            return None, np.asarray(read_rgb(path)).reshape(-1, 3)
        except UserError as error:
            return str(error), None

    return read
