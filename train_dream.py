"""Teach a network the things in a folder of pictures, so that it dreams of them.

    python train_dream.py dataset/slugs                     # dataset/slugs/<class>/*.jpg, at least two classes
    python dream.py photo.jpg --weights models/weights/slugs_mlx.npz

The classifier is replaced by one for the folder's classes; the first layers stay frozen, for edges and textures are the
same everywhere. With --cache they are computed once a picture. What comes out is the epoch that did best on the
pictures held out. runs/NAME/ holds the checkpoint that --resume goes on from, log.csv, curves.png, confusion.png, the
command, and, with --preview PICTURE, dreams of the epochs side by side; with --preview-class, of the subject itself.

On several machines: mlx.launch -n 2 python train_dream.py ... shares each batch among them.
"""

import argparse
import contextlib
import csv
import math
import shlex
import shutil
import signal
import sys
import time
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import models
from models import weights_file
from models.dreaming.targets import classes_called, parse_targets
from models.network import Network
from models.registry import FREEZE_TO
from models.training import checkpoints, freezing
from models.training import step as learning
from models.training.batches import share_batches

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

import calc_cm
from dataset import Augmentation, ImageFolder, Loader, cli, plots, read_folder
from dataset.cli import Parser, UsageError, UserError, log, number, progress, whole_number
from dataset.features import FeatureLoader, compute_features, fingerprint, flips_only
from dataset.files import atomic_write, sha256
from dataset.images import read_image, resize_image, write_image
from dataset.workers import Workers, cores
from dream import CLASS_DEFAULTS, deepdream

RATES = {"sgd": 0.005, "adam": 0.0003, "adamw": 0.0003}
SCRATCH_RATE = 10  # times these, from scratch
HEAD_RATE = 5  # times the rate: new parameters have further to go
COLOUR_SAMPLE = 1000  # pictures whose colours are measured
PREVIEW_SIZE = 320  # pixels, longer side
PREVIEW_COLUMNS = 7  # epochs in the strip
FOR_EVAL = ("folder", "eval", "weights", "base", "batch_size", "seed", "image_size", "val", "workers", "quiet")


def parse_arguments(arguments=None):
    parser = Parser(prog="train_dream.py", description="Fine-tune a network on your pictures, to dream of them.")
    parser.add_argument("folder", metavar="FOLDER", help="pictures in FOLDER/<class>/, or in its train/ and val/")
    parser.add_argument("-o", "--output", type=Path, metavar="NAME_mlx.npz", help="weights file to write (default: "
                        "models/weights/FOLDER_mlx.npz); its name also names runs/NAME/")  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run; same options otherwise")
    parser.add_argument("--eval", action="store_true", help="train nothing: how good are --weights on FOLDER?")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")

    base = parser.add_argument_group("network")
    base.add_argument("--base", choices=models.REGISTRY, metavar="NAME", help="network to start from (default: what "
                      "--weights holds, else googlenet); see dream.py --list-models")  # fmt: skip
    base.add_argument("--weights", type=Path, metavar="FILE", help="its weights (default: as dream.py finds them)")
    base.add_argument("--from-scratch", action="store_true", help="start from random weights, and train all of it")
    base.add_argument("--freeze-to", metavar="LAYER", help="frozen: the layers up to this one, inclusive; none: no "
                      "layer (default: inception3b for googlenet, about a third of the others)")  # fmt: skip
    base.add_argument("--train", nargs="+", metavar="LAYER", help="train these layers only, such as inception4c "
                      "inception5b fc")  # fmt: skip
    base.add_argument("--aux", choices=("train", "strip"), help="auxiliary classifiers: each adds 0.3 of its loss, or "
                      "is left out (default: train where the base has them, and from scratch)")  # fmt: skip

    learn = parser.add_argument_group("learning")
    learn.add_argument("--epochs", type=whole_number(1), default=10, metavar="N", help="times through the pictures")
    learn.add_argument("--batch-size", type=whole_number(1), default=32, metavar="N", help="pictures a step")
    learn.add_argument("--optimizer", choices=RATES, default="sgd", help="sgd, adam or adamw")
    learn.add_argument("--lr", type=number(above=0), metavar="X", help="learning rate (default: 0.005 for sgd, 0.0003 "
                       "for adam and adamw; 10 times that from scratch)")  # fmt: skip
    learn.add_argument("--head-lr", type=number(above=0), metavar="X", help="learning rate of what the base did not "
                       "have, the classifier above all (default: 5 times --lr)")  # fmt: skip
    learn.add_argument("--momentum", type=number(least=0), default=0.9, metavar="X", help="of sgd")
    learn.add_argument("--weight-decay", type=number(least=0), default=0.0001, metavar="X", help="pull towards 0")
    learn.add_argument("--schedule", choices=("cosine", "step", "constant"), default="cosine", help="cosine: down to "
                       "0; step: a tenth after each third of the run")  # fmt: skip
    learn.add_argument("--warmup", type=number(least=0), default=0.5, metavar="X", help="epochs in which the rate "
                       "rises from 0")  # fmt: skip
    learn.add_argument("--clip", type=number(above=0), default=5.0, metavar="X", help="longest gradient, its L2 norm")
    learn.add_argument("--label-smoothing", type=number(least=0), default=0.0, metavar="X", help="0..1, the share of "
                       "the target that goes to all classes alike")  # fmt: skip
    learn.add_argument("--balance", action="store_true", help="rare classes count as much as common ones")
    learn.add_argument("--seed", type=whole_number(0), metavar="N", help="of everything random (default: 0)")

    data = parser.add_argument_group("pictures")
    data.add_argument("--image-size", type=whole_number(32), metavar="N", help="side of the squares that the network "
                      "sees, pixels (default: 224)")  # fmt: skip
    data.add_argument("--val", type=number(least=0), metavar="X", help="share of each class that is held out, 0..1, "
                      "where FOLDER has no val/ (default: 0.1)")  # fmt: skip
    data.add_argument("--augment", nargs="+", metavar="NAME=X", help="crop: least share of the picture's area; flip: "
                      "probability; rotation: degrees; colour: 0..1; or none (default: crop=0.25 flip=0.5 colour=0.1; "
                      "with --cache flip=0.5)")  # fmt: skip
    data.add_argument("--cache", action="store_true", help="compute the frozen layers once for each picture and its "
                      "mirror image, and keep that in runs/.cache/")  # fmt: skip
    data.add_argument("--workers", type=whole_number(1), metavar="N", help="processes that read pictures (default: "
                      "one a core, less one)")  # fmt: skip

    look = parser.add_argument_group("preview")
    look.add_argument("--preview", type=Path, metavar="PICTURE", help="dream on it after every epoch")
    look.add_argument("--preview-class", nargs="+", metavar="CLASS", help="dream of these classes, each in a row of "
                      "its own, as dream.py --class: so one sees the subject come, from 'untrained', which is what the "
                      "same dream makes of the base with the new classifier before it has learnt anything")  # fmt: skip
    look.add_argument("--preview-layers", nargs="+", metavar="TARGET", help="or enhance these, as dream.py --layers "
                      "(default: the layer that dream.py takes)")  # fmt: skip
    args = parser.parse_args(arguments)
    if args.eval:
        for name, value in vars(args).items():
            if name not in FOR_EVAL and value != parser.get_default(name):
                raise UsageError(f"--eval trains nothing: leave out --{name.replace('_', '-')}")
    check(args)
    return args


def check(args):
    """Usage errors that argparse does not know of, and the defaults that depend on other options."""
    if args.eval and not args.weights:
        raise UsageError("--eval needs the network: --weights FILE")
    if args.from_scratch and (args.weights or args.train or args.freeze_to not in (None, "none")):
        raise UsageError("--from-scratch trains the whole network: leave out --weights, --train and --freeze-to")
    if args.train and args.freeze_to:
        raise UsageError("--train and --freeze-to exclude each other")
    if args.preview_class and args.preview_layers:
        raise UsageError("--preview-class and --preview-layers exclude each other")
    if (args.preview_class or args.preview_layers) and not args.preview:
        raise UsageError("--preview-class and --preview-layers need a picture to dream on: --preview PICTURE")
    if args.label_smoothing >= 1 or args.momentum >= 1 or (args.val or 0) >= 1:
        raise UsageError("--label-smoothing, --momentum and --val must be below 1")
    if args.output and args.output.suffix != ".npz":
        raise UsageError(f"--output {args.output}: its name must end in .npz")
    named = args.weights if args.eval else args.output or Path(args.folder).absolute()
    args.name = named.name.removesuffix(".npz").removesuffix("_mlx")
    if args.name.lstrip(".") != args.name or not args.name:
        raise UsageError(f"{named}: the run is named by it, and needs a name: give another with -o")
    if not args.output and not args.eval:
        if args.name in models.REGISTRY:  # it would take the place of the published weights
            raise UsageError(f"name the weights file with -o: {args.name}_mlx.npz is that of a published network")
        args.output = models.WEIGHTS / f"{args.name}_mlx.npz"
    if args.weights and args.output and args.output.exists() and args.output.samefile(args.weights):
        raise UsageError(f"{args.output} is the base itself: name another file with -o")
    args.run = Path("runs") / args.name
    args.augmentation = parse_augmentation(args)
    if args.eval:
        return  # what was used in training is used here as well, unless something else is asked for
    defaults = {
        "seed": 0,
        "image_size": 224,
        "val": 0.1,
        "lr": RATES[args.optimizer] * (SCRATCH_RATE if args.from_scratch else 1),
    }
    for key, value in defaults.items():
        if getattr(args, key) is None:
            setattr(args, key, value)
    args.head_lr = args.head_lr or HEAD_RATE * args.lr


def parse_augmentation(args):
    given = args.augment or (["flip=0.5"] if args.cache else ["crop=0.25", "flip=0.5", "colour=0.1"])
    values = {"crop": 1.0, "flip": 0.0, "rotation": 0.0, "colour": 0.0}
    for text in given if given != ["none"] else []:
        name, _, value = text.partition("=")
        try:
            known = name in values
            values[name] = float(value)
        except ValueError:
            known = False
        if not known:
            raise UsageError(f"--augment {text}: write NAME=NUMBER, NAME one of crop, flip, rotation, colour")
    if not all(0 <= values[name] <= 1 for name in ("crop", "flip", "colour")) or not values["crop"]:
        raise UsageError("--augment: crop, flip and colour are between 0 and 1")
    if not 0 <= values["rotation"] <= 180:
        raise UsageError("--augment: rotation is 0 to 180 degrees")
    if args.cache:
        if values != {"crop": 1.0, "flip": values["flip"], "rotation": 0.0, "colour": 0.0}:
            raise UsageError("--cache goes with no augmentation but flip: every other makes each picture new each time")
        return flips_only(values["flip"])
    crop = values.pop("crop")
    return Augmentation((crop, 1.0), **values)


# --- The story of a run ---


@dataclass
class State:
    """Where a run is: with the weights and the optimizers' momenta, all it takes to go on."""

    epoch: int = 0  # epochs finished
    step: int = 0  # batches done in the epoch at hand, and what they came to:
    loss: float = 0.0
    correct: float = 0.0
    seen: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    history: list = field(default_factory=list)  # a row of log.csv for each epoch
    best: int = 0  # the epoch that is exported


@dataclass
class Run:
    """What the functions below work on."""

    args: argparse.Namespace
    net: Network
    frozen: list  # modules
    cut: str | None  # the layer that the frozen part ends with
    optimizers: list  # (optimizer, learning rate, parameter paths)
    group: mx.distributed.Group
    settings: dict  # that a resumed run must have, too
    untrained: bool  # at the start the classifier is one of random weights
    state: State = field(default_factory=State)

    @property
    def first(self):
        """Whether this is the one process that writes and speaks."""
        return self.group.rank() == 0


def main(arguments=None):
    args = parse_arguments(arguments)
    if args.eval:
        return evaluate_file(args)
    train_set, val_set = read_folder(args.folder, args.val, args.seed)
    run = prepare(args, train_set, val_set)
    with contextlib.ExitStack() as stack:
        train_loader = stack.enter_context(loader(run, train_set, args.augmentation))
        val_loader = stack.enter_context(loader(run, val_set)) if len(val_set) else None
        weight = learning.class_weights(train_set.counts, args.balance)
        decay = args.weight_decay if args.optimizer != "adamw" else 0.0  # which has a way of its own
        step = learning.training_step(
            run.net, run.cut, run.optimizers, run.group, weight, args.label_smoothing, args.clip, decay
        )
        interrupt = stack.enter_context(Interrupt())
        if run.state == State():
            preview(run)
        try:
            while run.state.epoch < args.epochs:
                train_epoch(run, train_loader, step, interrupt)
                finish_epoch(run, learning.evaluate(run.net, val_loader, run.cut, run.group) if val_loader else None)
        except RuntimeError as error:
            if run.group.size() > 1:  # what MLX raises when a connection breaks
                raise UserError(f"another process of this run has ended, so this one ends as well: {error}") from None
            raise
    if run.first:
        print(args.output)
    return 0


def prepare(args, train_set, val_set):
    """The network with a classifier for these classes, frozen where it is not to learn, and its optimizers."""
    classes = list(train_set.classes)
    if len(classes) < 2:
        raise UserError(f"{args.folder}: one class teaches nothing, for there is nothing to tell it from: put other "
                        f"pictures in a second folder beside {classes[0]}/")  # fmt: skip
    group = mx.distributed.init()
    if args.batch_size % group.size():
        raise UsageError(f"--batch-size {args.batch_size} cannot be shared by {group.size()} processes")
    quiet = args.quiet or group.rank() > 0

    net, new = starting_network(args, classes, quiet)
    if not net.accepts_size(args.image_size, args.image_size, ["logits"]):
        raise UsageError(f"--image-size {args.image_size}: too small for {net.metadata['model']}")
    if args.preview:
        read_image(args.preview)
        parse_targets(net, args.preview_layers, args.preview_class)
    net.metadata |= colours(args, train_set)
    learned = freezing.learned_paths(net, frozen_to(args, net), args.train)
    frozen = freezing.freeze(net, learned)
    cut = freezing.split_layer(net, learned)
    share_batches(net, group)
    if args.cache and not cut:
        raise UsageError("--cache keeps what the frozen layers compute, and nothing is frozen")

    settings = settings_of(args, net, train_set) | {"processes": group.size()}
    head = set() if args.from_scratch else set(new)
    optimizers = learning.make_optimizers(
        net, args.optimizer, args.lr, args.head_lr, head, args.momentum, args.weight_decay
    )
    untrained = not freezing.classifier_paths(net.metadata["model"]).isdisjoint(new)
    run = Run(args, net, frozen, cut, optimizers, group, settings, untrained)
    start_or_resume(run)
    million = sum(array.size for _, array in tree_flatten(net.trainable_parameters())) / 1e6
    log(f"{len(train_set)} pictures of {len(classes)} classes, {len(val_set)} held out; {million:.2f} million "
         f"parameters learn, {f'all after {cut}' if cut else 'the whole network'}", quiet)  # fmt: skip
    return run


def starting_network(args, classes, quiet):
    """(network, paths of its new parameters): from the base's weights, or from random ones."""
    path = None if args.from_scratch else args.weights or models.find(args.base or "googlenet")
    if not quiet:
        models.advise(path)
    if args.from_scratch:
        model, arrays, metadata, has_aux = args.base or "googlenet", {}, {"classes": None}, True
    else:
        arrays, metadata = weights_file.read(path)
        model, has_aux = metadata["model"], metadata["aux"]
        if args.base not in (None, model):
            raise UserError(f"{path}: these are weights of {model}, not of {args.base}")
        metadata |= {"source": path.name, "source_sha256": sha256(path)}
    entry = models.entry(model)
    if args.aux == "train" and not entry.aux:
        raise UsageError(f"--aux train: {model} has no auxiliary classifiers")
    aux = entry.aux and (args.aux == "train" or (has_aux and args.aux is None))
    net = freezing.new_network(model, len(classes), aux, args.seed)
    known = metadata["classes"] == classes  # then the classifier is worth keeping
    net.metadata = {**weights_file.statistics_of(entry), **metadata, "model": model, "num_classes": len(classes)}
    # the base's own layer may be a frozen one, of which the new network dreams just as the old
    net.metadata |= {"classes": classes, "aux": aux, "layer": entry.default_layer}
    return net, freezing.transfer(net, arrays, known)


def colours(args, train_set):
    """Metadata on the colours of the set; from scratch, they are also what the network normalises with."""
    paths = train_set.paths[:: -(-len(train_set) // COLOUR_SAMPLE)]
    with Workers("calc_cm:reader", None, args.workers or min(8, cores())) as workers:
        answers = workers.map((path, 1, 0) for path in paths)
        found = calc_cm.combine(moments for problem, moments, _ in answers if not problem)
    mean, std = [(255 * values).round(3).tolist() for values in (found.mean, found.std)]
    own = {"color_matrix": found.matrix.tolist(), "set_mean": mean, "set_std": std}
    return own | ({"mean": mean, "std": [max(s, 1.0) for s in std]} if args.from_scratch else {})


def frozen_to(args, net):
    if args.from_scratch or args.train or args.freeze_to == "none":
        return None
    return args.freeze_to or FREEZE_TO[net.metadata["model"]]


def loader(run, folder, augmentation=None):
    """Batches of a folder: of pictures, or with --cache of what the frozen layers make of them."""
    args, group = run.args, run.group
    share = {"seed": args.seed, "rank": group.rank(), "ranks": group.size()}
    batch = args.batch_size // group.size()
    if not args.cache:
        report = log if run.first else lambda line: None
        return Loader(folder, batch, args.image_size, augmentation, workers=args.workers, report=report, **share)
    arrays = {path: np.array(array) for path, array in tree_flatten(run.net.parameters())}
    frozen = set(arrays) - {path for path, _ in tree_flatten(run.net.trainable_parameters())}
    before = run.net.layers[: run.net.layers.index(run.cut) + 1]
    arrays = {path: arrays[path] for path in frozen if any(freezing.below(path, layer) for layer in before)}
    views = 2 if augmentation and augmentation.flip else 1
    meta = [run.net.metadata[key] for key in ("model", "mean", "std", "channel_order")]
    name = fingerprint(folder, arrays, run.cut, args.image_size, views, meta)
    own = "" if run.first else f"-{group.rank()}"  # ranks on one machine would write the same file
    features = compute_features(
        folder,
        lambda images: np.array(learning.frozen_features(run.net, images, run.cut)),
        args.image_size,
        views,
        Path("runs/.cache") / f"{name}{own}.npy",
        workers=args.workers,
        quiet=args.quiet or not run.first,
    )
    return FeatureLoader(folder, features, batch, augmentation, **share)


# --- Learning ---


def train_epoch(run, batches, step, interrupt):
    """The rest of the epoch that the run is in."""
    args, net, state, group = run.args, run.net, run.state, run.group
    steps = len(batches)
    freezing.training_mode(net, run.frozen)
    with progress(steps, args.quiet or not run.first, desc=f"epoch {state.epoch + 1}/{args.epochs}", unit="batch",
                  initial=state.step) as bar:  # fmt: skip
        began, waited = time.perf_counter(), batches.waited
        for batch, labels in batches.epoch(state.epoch, state.step) if state.step < steps else ():
            position = state.epoch * steps + state.step
            mx.random.seed(zlib.crc32(f"{args.seed} {position}".encode()))  # dropout's, the same after --resume
            factor = learning.rate_factor(position, args.epochs * steps, args.warmup * steps, args.schedule)
            for optimizer, rate, _ in run.optimizers:
                optimizer.learning_rate = rate * factor
            loss, correct = step(learning.inputs(net, batch, run.cut), mx.array(labels))

            sums = mx.array([loss.item() * len(labels), correct.item(), len(labels), interrupt.received])
            total, correct, seen, stop = mx.distributed.all_sum(sums, group=group).tolist()
            check_finite(run, total)
            state.loss, state.correct, state.seen = state.loss + total, state.correct + correct, state.seen + seen
            state.step += 1
            now = time.perf_counter()
            state.seconds, state.waited = state.seconds + now - began, state.waited + batches.waited - waited
            began, waited = now, batches.waited
            bar.set_postfix_str(f"loss {state.loss / state.seen:.3f}, waited {state.waited:.1f} s", refresh=False)
            bar.update()
            if stop:
                save(run)
                where = f"epoch {state.epoch + 1}, batch {state.step + 1}"
                log(f"saved: the same command with --resume goes on from {where}", not run.first)
                interrupt.end()


def check_finite(run, loss):
    if not math.isfinite(loss):
        raise UserError(f"the loss is no longer a number (epoch {run.state.epoch + 1}): try a lower --lr (it is "
                        f"{run.args.lr:g}) or a longer --warmup; nothing of this epoch was saved")  # fmt: skip


class Interrupt:
    """Ctrl-C and SIGTERM wait for the end of a step, where the run is saved; a second one does not wait."""

    received = 0

    def __enter__(self):
        self.before = {sort: signal.signal(sort, self.note) for sort in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for sort, handler in self.before.items():
            signal.signal(sort, handler)

    def note(self, sort, frame):
        self.received = sort
        self.__exit__()

    def end(self):
        raise SystemExit(128 + signal.SIGTERM) if self.received == signal.SIGTERM else KeyboardInterrupt


# --- How good it is ---


def evaluate_file(args):
    """--eval: a table of how good a weights file is on a folder; on what was held out, if it was trained on it."""
    net = models.load(args.base, args.weights)
    then = net.metadata.get("training", {})
    size = args.image_size or then.get("image_size", 224)
    seed = then.get("seed", 0) if args.seed is None else args.seed
    train_set, val_set = read_folder(args.folder, then.get("val", 0.1) if args.val is None else args.val, seed)
    pictures = val_set if len(val_set) else train_set
    if net.classes is None:
        raise UserError(f"{args.weights}: it does not say what its classes are")
    called = {name: classes_called(net.classes, name) for name in pictures.classes}
    unknown = [name for name, found in called.items() if len(found) != 1]
    if unknown:
        raise UserError(f"{args.folder}: {args.weights.name} does not know the class {unknown[0]}")
    place = np.array([found[0] for found in called.values()], np.int32)
    pictures = ImageFolder(tuple(net.classes), pictures.paths, place[pictures.labels])
    with Loader(pictures, args.batch_size, size, workers=args.workers) as batches:
        scores = learning.evaluate(net, batches, None, mx.distributed.init())
    print(scores.table(net.classes))
    write_image(args.run / "confusion.png", plots.confusion(scores.confusion, net.classes))
    print(args.run / "confusion.png")
    return 0


# --- What stays ---


def start_or_resume(run):
    """Take up the run that --resume means, or make its folder for a new one."""
    args, file = run.args, run.args.run / "checkpoint.npz"
    optimizers = [optimizer for optimizer, _, _ in run.optimizers]
    if run.first and args.resume:
        stored = checkpoints.read_state(file)
        differing = [key for key, value in run.settings.items() if stored["settings"].get(key) != value]
        if differing:
            key = differing[0]
            raise UsageError(f"--resume: the run was begun with another {key.replace('_', ' ')}: "
                             f"{stored['settings'].get(key)}, not {run.settings[key]}")  # fmt: skip
        checkpoints.restore(file, run.net, optimizers)
        run.state = State(**stored["state"])
    elif run.first:
        if file.exists() and (epoch := checkpoints.read_state(file)["state"]["epoch"]) < args.epochs:
            raise UserError(f"{args.run}: an unfinished run is there, in epoch {epoch + 1}: go on with --resume, or "
                            f"remove it (rm -r {args.run}), or name another with -o")  # fmt: skip
        shutil.rmtree(args.run, ignore_errors=True)
        with atomic_write(args.run / "command") as temporary:
            temporary.write_text(shlex.join(["python", *sys.argv]) + "\n")
    if args.resume:  # the other machines need no copy of the file
        checkpoints.broadcast(run.net, optimizers, run.group)
        numbers = [run.state.epoch, run.state.step] if run.first else [0, 0]
        run.state.epoch, run.state.step = mx.distributed.all_sum(mx.array(numbers), group=run.group).tolist()


def settings_of(args, net, train_set):
    """What decides about the weights of a run."""
    names = ("epochs", "batch_size", "optimizer", "lr", "head_lr", "momentum", "weight_decay", "schedule", "warmup")
    names += ("clip", "label_smoothing", "balance", "seed", "image_size", "val", "cache", "freeze_to", "train")
    settings = {name: getattr(args, name) for name in names}
    settings |= {"model": net.metadata["model"], "aux": net.metadata["aux"], "base": net.metadata.get("source_sha256")}
    pictures = "".join(f"{path} {label}" for path, label in zip(train_set.paths, train_set.labels, strict=True))
    settings |= {"augmentation": repr(args.augmentation), "pictures": zlib.crc32(pictures.encode())}
    return settings


def finish_epoch(run, scores):
    """Write down how the epoch went; export the network if it was the best so far."""
    state, args = run.state, run.args
    if scores:
        check_finite(run, scores.loss)
    row = {
        "epoch": state.epoch + 1,
        "train_loss": state.loss / state.seen,
        "train_top1": state.correct / state.seen,
        "val_loss": scores.loss if scores else None,
        "val_top1": scores.top1 if scores else None,
        "val_top5": scores.top5 if scores else None,
        "learning_rate": run.optimizers[0][0].learning_rate.item(),
        "images_per_second": state.seen / state.seconds,
        "seconds": state.seconds,
        "waited": state.waited,
    }
    best = max(state.history, key=selection_key, default=row)
    run.state = State(state.epoch + 1, history=[*state.history, row], best=state.best)
    if selection_key(row) >= selection_key(best):
        run.state.best = row["epoch"]
    if not run.first:
        return
    held_out = f"  held out: loss {scores.loss:.3f}, top-1 {scores.top1:.1%}, top-5 {scores.top5:.1%}" if scores else ""
    print(f"epoch {row['epoch']}/{args.epochs}: loss {row['train_loss']:.3f}, top-1 {row['train_top1']:.1%}{held_out}  "
          f"{row['images_per_second']:.1f} pictures/s, waited {state.waited:.1f} s", flush=True)  # fmt: skip
    if run.state.best == row["epoch"]:
        export(run, row)
        if scores:
            picture = plots.confusion(scores.confusion, run.net.classes)
            write_image(args.run / "confusion.png", picture)
    preview(run)
    write_log(run)
    save(run)
    if row["epoch"] == args.epochs and scores:
        print(scores.table(run.net.classes))


def selection_key(row):
    """By which the best epoch is chosen: accuracy on the held out, then their loss; the last where none are."""
    return (row["val_top1"], -row["val_loss"]) if row["val_top1"] is not None else (row["epoch"],)


def export(run, row):
    """The weights file for dream.py."""
    args, net = run.args, run.net
    source = net.metadata.get("source")
    summary = {key: value for key, value in row.items() if key not in ("seconds", "waited")}
    origin = f"{f'fine-tuned from {source}' if source else 'trained from scratch'} on {Path(args.folder).name}"
    if net.metadata.get("origin"):
        origin += f"; the former: {net.metadata['origin']}"
    metadata = {**net.metadata, "origin": origin, "training": {**run.settings, **summary}}
    # frozen weights keep every bit
    dtype = "float16" if net.metadata.get("dtype", "float16") == "float16" else "float32"
    weights_file.write(args.output, {p: np.array(a) for p, a in tree_flatten(net.parameters())}, metadata, dtype)


def save(run):
    if run.first:
        state = {"settings": run.settings, "state": asdict(run.state)}
        optimizers = [optimizer for optimizer, _, _ in run.optimizers]
        checkpoints.write(run.args.run / "checkpoint.npz", run.net, optimizers, state)


def write_log(run):
    history = run.state.history
    with atomic_write(run.args.run / "log.csv") as temporary, open(temporary, "w", newline="") as file:
        table = csv.DictWriter(file, history[0])
        table.writeheader()
        table.writerows(history)
    column = {key: [row[key] for row in history] for key in history[0]}
    panels = [
        ("loss", {"training": column["train_loss"], "held out": column["val_loss"]}),
        ("top-1 accuracy", {"training": column["train_top1"], "held out": column["val_top1"]}),
        ("learning rate", {"": column["learning_rate"]}),
    ]
    write_image(run.args.run / "curves.png", plots.curves(panels, column["epoch"], "epoch"))


def preview(run):
    """Dream on the --preview picture, and put all dreams of the run side by side."""
    args, folder = run.args, run.args.run / "preview"
    if not (args.preview and run.first):
        return
    image = read_image(args.preview)
    scale = min(1.0, PREVIEW_SIZE / max(image.shape[:2]))
    image = resize_image(image, [max(1, round(side * scale)) for side in image.shape[:2]])
    run.net.eval()
    rows = preview_rows(args, run.net)
    with progress(None, args.quiet, desc="preview", unit="step", leave=False) as bar:
        for end, (_, options) in rows.items():
            dream = deepdream(run.net, image, **options, seed=args.seed, callback=bar.update)
            write_image(folder / f"epoch-{run.state.epoch:03}{end}", dream)

    def kept(epoch, end):
        file = folder / f"epoch-{epoch:03}{end}"
        return read_image(file) if file.exists() else None  # --resume may have asked for another preview

    shown = sorted({round(i) for i in np.linspace(0, run.state.epoch, min(run.state.epoch + 1, PREVIEW_COLUMNS))})
    before = "untrained" if args.preview_class and run.untrained else "before"
    columns = [f"epoch {epoch}" if epoch else before for epoch in shown]
    table = {caption: [kept(epoch, end) for epoch in shown] for end, (caption, _) in rows.items()}
    write_image(args.run / "preview.png", plots.strip(table, columns))


def preview_rows(args, net):
    """{end of its files' names: (caption, arguments of deepdream())} of the rows of the preview."""
    if args.preview_class:
        return {f"-{name}.png": (name, {"classes": name, **CLASS_DEFAULTS}) for name in args.preview_class}
    return {".png": (" ".join(args.preview_layers or [net.metadata["layer"]]), {"layers": args.preview_layers})}


if __name__ == "__main__":
    cli.run(main)
