"""A training run, and how it is kept on disk: begun, saved and resumed."""

import argparse
import os
import shlex
import shutil
import sys
import zlib
from dataclasses import asdict, dataclass, field

import mlx.core as mx

from dataset.cli import UsageError, UserError
from dataset.files import atomic_write

from ..network import Network
from . import checkpoints
from .options import FORMER, SETTINGS


@dataclass
class State:
    """How far a run has come: with the weights and the optimizers' momenta, all it takes to go on."""

    epoch: int = 0  # epochs finished
    step: int = 0  # batches done in the epoch at hand, and their sums:
    loss: float = 0.0
    correct: float = 0.0
    seen: float = 0.0
    seconds: float = 0.0
    data_seconds: float = 0.0  # spent waiting for images
    history: list = field(default_factory=list)  # a row of log.csv for each epoch
    best: int = 0  # the epoch that is exported

    def to_json(self):
        """Return what a checkpoint holds of it, under the names that its entries have always had."""
        values = asdict(self)
        return values | {"waited": values.pop("data_seconds")}

    @classmethod
    def from_json(cls, values):
        """Return the State of to_json(); ValueError, KeyError or TypeError for anything else."""
        values = dict(values)
        state = cls(data_seconds=values.pop("waited"), **values)
        for name, value in vars(state).items():
            whole = name in ("epoch", "step", "best")
            if name != "history" and not is_amount(value, int if whole else (int, float)):
                raise ValueError(name)
        if not isinstance(state.history, list) or len(state.history) != state.epoch:
            raise ValueError("history")
        for row in state.history:
            check_row(row, state.history[0])
        return state


def is_amount(value, kinds=(int, float)):
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value < 1e18


def check_row(row, first):
    """Raise ValueError or TypeError where a row of log.csv is not like the first, or says what none can say."""
    if not isinstance(row, dict) or row.keys() != first.keys() or not {"epoch", "val_loss", "val_top1"} <= row.keys():
        raise TypeError("row")
    for name, value in row.items():
        if not is_amount(value) and not (value is None and name.startswith("val_")):
            raise ValueError(name)


@dataclass
class Run:
    """A training run: its options, the network, what learns how fast, and the processes that share the work."""

    args: argparse.Namespace
    net: Network
    base: Network | None  # that it started from; None from scratch
    frozen: list  # modules
    split: str | None  # the layer that the frozen part ends with
    optimizers: list  # (optimizer, learning rate, parameter paths)
    group: mx.distributed.Group
    settings: dict  # the options that decide about the weights: --resume must have the same
    untrained: bool  # at the start the classifier is one of random weights
    state: State = field(default_factory=State)
    concepts: object = None  # ConceptExport, where there is a background to make concepts against

    @property
    def first(self):
        """Whether this is the one process that writes and prints."""
        return self.group.rank() == 0


def start_or_resume(run):
    """Go on with the run that --resume means, or make the folder of a new one."""
    args, file = run.args, run.args.run / "checkpoint.npz"
    optimizers = [optimizer for optimizer, _, _ in run.optimizers]
    if run.first and args.resume:
        stored = checkpoints.read_state(file)
        check_same(args.folder, stored, run.settings, list(run.net.classes))
        checkpoints.restore(file, run.net, optimizers)
        try:
            run.state = State.from_json(stored["state"])
        except (ValueError, KeyError, TypeError):
            raise checkpoints.damaged(file) from None
    elif run.first:
        if file.exists() and (epoch := finished_epochs(file)) < args.epochs:
            raise UserError(
                f"{args.run}: an unfinished run is there, in epoch {epoch + 1}: go on with --resume, or remove it "
                f"(rm -r {args.run}), or name another with -o"
            )
        shutil.rmtree(args.run, ignore_errors=True)
        with atomic_write(args.run / "command") as temporary:
            temporary.write_bytes(os.fsencode(shlex.join(["python", *sys.argv])) + b"\n")
    if args.resume:  # the other machines need no copy of the file
        checkpoints.broadcast(run.net, optimizers, run.group)
        numbers = [run.state.epoch, run.state.step] if run.first else [0, 0]
        run.state.epoch, run.state.step = mx.distributed.all_sum(mx.array(numbers), group=run.group).tolist()


def finished_epochs(path):
    """Return how many epochs the run of a checkpoint has finished; 0 where that cannot be told."""
    epoch = checkpoints.read_state(path)["state"].get("epoch")
    return epoch if isinstance(epoch, int) else 0


def check_same(folder, stored, settings, classes):
    """Raise UsageError where a run is resumed with other settings, classes or images than those of its checkpoint."""
    then = stored.get("classes")
    if then and then != classes:
        changes = {"new": sorted(set(classes) - set(then)), "gone": sorted(set(then) - set(classes))}
        words = "; ".join(f"{word}: {', '.join(names)}" for word, names in changes.items() if names)
        raise UsageError(
            f"--resume: the run was begun with {len(then)} classes, now there are {len(classes)} ({words})"
        )
    for key, value in settings.items():
        before = {**FORMER, **stored["settings"]}.get(key)
        if before == value:
            continue
        if key == "pictures":  # a checksum, which would tell nobody anything
            raise UsageError(f"--resume: the pictures in {folder} are not those that the run was begun with")
        raise UsageError(f"--resume: the run was begun with another {key.replace('_', ' ')}: {before}, not {value}")


def settings_of(args, net, train_set):
    """Return what decides about the weights of a run."""
    settings = {name: getattr(args, name) for name in SETTINGS}
    settings |= {"model": net.metadata.model, "aux": net.metadata.aux, "base": net.metadata.source_sha256}
    images = "".join(f"{path} {label}" for path, label in zip(train_set.paths, train_set.labels, strict=True))
    a = args.augmentation  # in the words that checkpoints have always had
    text = f"Augmentation(scale={a.scale}, ratio={a.ratio}, flip={a.flip}, rotation={a.rotation}, colour={a.colour})"
    return settings | {"augmentation": text, "pictures": zlib.crc32(os.fsencode(images))}


def save(run):
    if run.first:
        state = {"settings": run.settings, "state": run.state.to_json(), "classes": list(run.net.classes)}
        optimizers = [optimizer for optimizer, _, _ in run.optimizers]
        checkpoints.write(run.args.run / "checkpoint.npz", run.net, optimizers, state)
