"""Teach a network the things in a folder of pictures, so that it dreams of them.

    python train_dream.py dataset/slugs                     # dataset/slugs/<class>/*.jpg, at least two classes
    python dream.py photo.jpg --weights models/weights/slugs_mlx.npz

The classifier is replaced by one for the folder's classes; the first layers stay frozen, for edges and textures are the
same everywhere. With --cache they are computed once a picture. What comes out is the epoch that did best on the
pictures held out. runs/NAME/ holds the checkpoint that --resume goes on from, log.csv, curves.png, confusion.png, the
command, and, with --preview PICTURE, dreams of the epochs side by side; with --preview-class, of the subject itself.

On several machines: mlx.launch -n 2 python train_dream.py ... shares each batch among them.
"""

import contextlib
import csv
import math
import signal
import time
import zlib
from pathlib import Path

import models
from models import weights_file
from models.color_statistics import combine, read_moments
from models.dreaming.options import CLASS_DEFAULTS, CONCEPT_DEFAULTS
from models.dreaming.targets import Target, classes_called, own_layer, parse_targets
from models.launch import join_group
from models.training import freezing, transfer
from models.training.concept_export import ConceptExport, add_photographs, extras_of
from models.training.distributed import share_batches
from models.training.evaluation import evaluate
from models.training.loaders import make_loader
from models.training.options import parse_arguments
from models.training.run import Run, State, save, settings_of, start_or_resume
from models.training.step import class_weights, inputs, make_optimizers, rate_factor, training_step

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from dataset import ImageFolder, Loader, cli, plots, read_folder
from dataset.cli import UsageError, UserError, log, print_result, progress
from dataset.files import atomic_write
from dataset.images import read_image, resize_image, write_image
from dataset.workers import cores
from dream import deepdream

CLOCK = ("images_per_second", "seconds", "waited")  # of log.csv: what no two runs have alike
COLOR_SAMPLE = 1000  # images whose colors are measured
PREVIEW_SIZE = 320  # pixels, longer side
PREVIEW_COLUMNS = 7  # epochs in the strip
PREVIEW_ROWS = 4  # classes, unless they are named


def main(arguments=None):
    args = parse_arguments(arguments)
    if args.eval:
        return evaluate_file(args)
    train_set, val_set = read_folder(args.folder, args.val, args.seed)
    if len(train_set.classes) < 2 and not args.background:
        raise UserError(
            f"{args.folder}: one class teaches nothing, for there is nothing to tell it from: put other pictures in a "
            f"second folder beside {train_set.classes[0]}/"
        )
    if args.background:
        train_set, val_set = add_photographs(train_set, val_set, args.background)
    run = prepare(args, train_set, val_set)
    with contextlib.ExitStack() as stack:
        if run.first and (export := ConceptExport.prepare(run, train_set)):
            run.concepts = stack.enter_context(contextlib.closing(export.loader)) and export
        train_loader = stack.enter_context(make_loader(run, train_set, args.augmentation))
        val_loader = stack.enter_context(make_loader(run, val_set)) if len(val_set) else None
        weight = class_weights(train_set.counts, args.balance)
        decay = args.weight_decay if args.optimizer != "adamw" else 0.0  # adamw applies it itself
        step = training_step(
            *(run.net, run.split, run.optimizers, run.group, weight, args.label_smoothing, args.clip, decay),
            *(run.base, args.retain),
        )
        interrupt = stack.enter_context(Interrupt())
        if run.state == State():
            preview(run, stored_concepts(run, args.preview)[0])
        try:
            while run.state.epoch < args.epochs:
                train_epoch(run, train_loader, step, interrupt)
                finish_epoch(run, evaluate(run.net, val_loader, run.split, run.group) if val_loader else None)
        except RuntimeError as error:
            if run.group.size() > 1:  # what MLX raises when a connection breaks
                raise UserError(f"another process of this run has ended, so this one ends as well: {error}") from None
            raise
        broken = train_loader.broken | (val_loader.broken if val_loader else {})
    if run.first:
        print(args.output)
    if broken:
        raise UserError(f"{len(broken)} of {len(train_set) + len(val_set)} pictures could not be read; see above")
    return 0


def prepare(args, train_set, val_set):
    """Return the Run: the network with a classifier for the classes, what is frozen, and the optimizers."""
    classes = list(train_set.classes)
    group = join_group()
    if args.batch_size % group.size():
        raise UsageError(f"--batch-size {args.batch_size} cannot be shared by {group.size()} processes")
    quiet = args.quiet or group.rank() > 0

    path = None if args.from_scratch else args.weights or models.find(args.base or "googlenet")
    if not quiet:
        models.advise(path)
    net, new = transfer.starting_network(path, classes, args.base, args.aux, args.seed)
    base = models.load(weights=path) if path and args.retain else None
    if not net.accepts_size(args.image_size, args.image_size, ["logits"]):
        raise UsageError(f"--image-size {args.image_size}: too small for {net.metadata.model}")
    if args.preview:
        read_image(args.preview)
        parse_targets(net, args.preview_layers, args.preview_class)
    net.metadata = net.metadata.replace(**set_colors(args, train_set))
    learned = freezing.learned_paths(net, frozen_to(args, net), args.train)
    frozen = freezing.freeze(net, learned)
    split = freezing.split_layer(net, learned)
    share_batches(net, group)
    if args.cache and not split:
        raise UsageError("--cache keeps what the frozen layers compute, and nothing is frozen")

    settings = settings_of(args, net, train_set) | {"processes": group.size()}
    head = set() if args.from_scratch else set(new)
    optimizers = make_optimizers(net, args.optimizer, args.lr, args.head_lr, head, args.momentum, args.weight_decay)
    untrained = not transfer.classifier_paths(net.metadata.model).isdisjoint(new)
    run = Run(args, net, base, frozen, split, optimizers, group, settings, untrained)
    start_or_resume(run)
    million = sum(array.size for _, array in tree_flatten(net.trainable_parameters())) / 1e6
    log(
        f"{len(train_set)} pictures of {len(classes)} classes, {len(val_set)} held out; {million:.2f} million "
        f"parameters learn, {f'all after {split}' if split else 'the whole network'}",
        quiet,
    )
    return run


def set_colors(args, train_set):
    """Return metadata on the colors of the set; from scratch, they are also what the network normalises with."""
    paths = train_set.paths[:: -(-len(train_set) // COLOR_SAMPLE)]
    answers = read_moments(paths, args.workers or min(8, cores()))
    found = combine(moments for problem, moments, _ in answers if not problem)
    mean, std = [(255 * values).round(3).tolist() for values in (found.mean, found.std)]
    own = {"color_matrix": found.matrix.tolist(), "set_mean": mean, "set_std": std}
    return own | ({"mean": mean, "std": [max(s, 1.0) for s in std]} if args.from_scratch else {})


def frozen_to(args, net):
    if args.from_scratch or args.train or args.freeze_to == "none":
        return None
    return args.freeze_to or models.entry(net.metadata.model).freeze_to


# --- Learning ---


def train_epoch(run, batches, step, interrupt):
    """Train for what is left of the epoch that the run is in; on an interrupt, save the run and end it."""
    args, net, state, group = run.args, run.net, run.state, run.group
    steps = len(batches)
    freezing.training_mode(net, run.frozen, args.batch_norm)
    title = f"epoch {state.epoch + 1}/{args.epochs}"
    with progress(steps, args.quiet or not run.first, desc=title, unit="batch", initial=state.step) as bar:
        began, waited = time.perf_counter(), batches.data_seconds
        for batch, labels in batches.epoch(state.epoch, state.step) if state.step < steps else ():
            position = state.epoch * steps + state.step
            mx.random.seed(zlib.crc32(f"{args.seed} {position}".encode()))  # dropout's, the same after --resume
            factor = rate_factor(position, args.epochs * steps, args.warmup * steps, args.schedule)
            for optimizer, rate, _ in run.optimizers:
                optimizer.learning_rate = rate * factor
            loss, correct = step(inputs(net, batch, run.split), mx.array(labels))

            sums = mx.array([loss.item() * len(labels), correct.item(), len(labels), interrupt.received])
            total, correct, seen, stop = mx.distributed.all_sum(sums, group=group).tolist()
            check_finite(run, total)
            state.loss, state.correct, state.seen = state.loss + total, state.correct + correct, state.seen + seen
            state.step += 1
            now, waited_now = time.perf_counter(), batches.data_seconds
            state.seconds, state.data_seconds = state.seconds + now - began, state.data_seconds + waited_now - waited
            began, waited = now, waited_now
            bar.set_postfix_str(f"loss {state.loss / state.seen:.3f}, waited {state.data_seconds:.1f} s", refresh=False)
            bar.update()
            if stop:
                save(run)
                where = f"epoch {state.epoch + 1}, batch {state.step + 1}"
                log(f"saved: the same command with --resume goes on from {where}", not run.first)
                interrupt.end()


def check_finite(run, loss):
    if not math.isfinite(loss):
        raise UserError(
            f"epoch {run.state.epoch + 1}: the loss is no longer a number: try a lower --lr (it is {run.args.lr:g}) or "
            f"--head-lr ({run.args.head_lr:g}), or a longer --warmup; nothing of this epoch was saved"
        )


class Interrupt:
    """Holds back Ctrl-C and SIGTERM until the end of a step, where the run is saved; the second one acts at once."""

    received = 0

    def __enter__(self):
        self.before = {sort: signal.signal(sort, self.note) for sort in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for sort, handler in self.before.items():
            signal.signal(sort, handler)

    def note(self, sort, frame):
        self.received = sort
        cli.ENDING.set()
        self.__exit__()

    def end(self):
        raise SystemExit(128 + signal.SIGTERM) if self.received == signal.SIGTERM else KeyboardInterrupt


# --- How good it is ---


def evaluate_file(args):
    """Print how good --weights are on a folder: on the images held out in training, if they were trained on it."""
    net = models.load(args.base, args.weights)
    then = net.metadata.extra.get("training", {})
    size = args.image_size or then.get("image_size", 224)
    seed = then.get("seed", 0) if args.seed is None else args.seed
    train_set, val_set = read_folder(args.folder, then.get("val", 0.1) if args.val is None else args.val, seed)
    images = val_set if len(val_set) else train_set
    if net.classes is None:
        raise UserError(f"{args.weights}: it does not say what its classes are")
    called = {name: classes_called(net.classes, name) for name in images.classes}
    unknown = [name for name, found in called.items() if len(found) != 1]
    if unknown:
        raise UserError(f"{args.folder}: {args.weights.name} does not know the class {unknown[0]}")
    place = np.array([found[0] for found in called.values()], np.int32)
    images = ImageFolder(tuple(net.classes), images.paths, place[images.labels])
    with Loader(images, args.batch_size, size, workers=args.workers) as batches:
        scores = evaluate(net, batches, None, join_group())
        broken = batches.broken
    print(scores.table(net.classes))
    write_image(args.run / "confusion.png", plots.confusion(scores.confusion, net.classes))
    print(args.run / "confusion.png")
    return 1 if broken else 0


# --- What stays ---


def finish_epoch(run, scores):
    """Log how the epoch went, export the network if it was the best so far, and save the run."""
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
        "waited": state.data_seconds,
    }
    best = max(state.history, key=selection_key, default=row)
    run.state = State(state.epoch + 1, history=[*state.history, row], best=state.best)
    if selection_key(row) >= selection_key(best):
        run.state.best = row["epoch"]
    if not run.first:
        return
    print_result(epoch_line(row, args.epochs))
    best = run.state.best == row["epoch"]
    concepts, backgrounds = stored_concepts(run, best or args.preview)
    if best:
        export(run, row, extras_of(concepts, backgrounds, run.net.classes) if concepts else None)
        if scores:
            write_image(args.run / "confusion.png", plots.confusion(scores.confusion, run.net.classes))
    preview(run, concepts)
    write_log(run)
    save(run)
    if row["epoch"] == args.epochs and scores:
        print(scores.table(run.net.classes))


def epoch_line(row, epochs):
    held_out = ""
    if row["val_loss"] is not None:
        held_out = f"  held out: loss {row['val_loss']:.3f}, top-1 {row['val_top1']:.1%}, top-5 {row['val_top5']:.1%}"
    return (
        f"epoch {row['epoch']}/{epochs}: loss {row['train_loss']:.3f}, top-1 {row['train_top1']:.1%}{held_out}  "
        f"{row['images_per_second']:.1f} pictures/s, waited {row['waited']:.1f} s"
    )


def stored_concepts(run, wanted=True):
    """Return ({class: Concept}, {layer: Background}) of the network as it stands, if they are wanted and to be had."""
    return run.concepts.make(run) if run.concepts and wanted else ({}, {})


def selection_key(row):
    """Return what is largest for the best epoch: accuracy on the held out, then their loss; else the last counts."""
    return (row["val_top1"], -row["val_loss"]) if row["val_top1"] is not None else (row["epoch"],)


def export(run, row, extras):
    """Write the weights file for dream.py."""
    args, net = run.args, run.net
    source = net.metadata.source
    summary = {key: value for key, value in row.items() if key not in CLOCK}  # two runs have the same bytes
    origin = f"{f'fine-tuned from {source}' if source else 'trained from scratch'} on {Path(args.folder).name}"
    if net.metadata.origin:
        origin += f"; the former: {net.metadata.origin}"
    metadata = net.metadata.replace(origin=origin, training={**run.settings, **summary})
    # frozen weights keep every bit
    dtype = "float16" if net.metadata.dtype == "float16" else "float32"
    arrays = {path: np.array(array) for path, array in tree_flatten(net.parameters())}
    weights_file.write(args.output, arrays, metadata, dtype, extras)


def write_log(run):
    """Write log.csv and curves.png."""
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


def preview(run, concepts):
    """Dream on the --preview image, and put all dreams of the run side by side."""
    args, folder = run.args, run.args.run / "preview"
    if not (args.preview and run.first):
        return
    image = read_image(args.preview)
    scale = min(1.0, PREVIEW_SIZE / max(image.shape[:2]))
    image = resize_image(image, [max(1, round(side * scale)) for side in image.shape[:2]])
    run.net.eval()
    rows = preview_rows(args, run.net, concepts)
    with progress(None, args.quiet, desc="preview", unit="step", leave=False) as bar:
        for end, (_, options) in rows.items():
            dream = deepdream(run.net, image, **options, seed=args.seed, callback=lambda _: bar.update())
            write_image(folder / f"epoch-{run.state.epoch:03}{end}", dream)

    def kept(epoch, end):
        file = folder / f"epoch-{epoch:03}{end}"
        return read_image(file) if file.exists() else None  # --resume may have asked for another preview

    shown = sorted({round(i) for i in np.linspace(0, run.state.epoch, min(run.state.epoch + 1, PREVIEW_COLUMNS))})
    before = "untrained" if not args.preview_layers and run.untrained else "before"
    columns = [f"epoch {epoch}" if epoch else before for epoch in shown]
    table = {caption: [kept(epoch, end) for epoch in shown] for end, (caption, _) in rows.items()}
    write_image(args.run / "preview.png", plots.strip(table, columns))


def preview_rows(args, net, concepts):
    """Return {end of the files' names: (caption, arguments of deepdream())}, one a row of the preview."""
    names = args.preview_class or list(concepts)[:PREVIEW_ROWS]
    if args.preview_layers or not names:
        layers = args.preview_layers or [own_layer(net)]
        return {".png": (" ".join(layers), {"layers": layers})}
    rows = {}
    for name in names:
        (target,) = parse_targets(net, classes=name)
        concept = concepts.get(net.classes[target.channels[0]])
        options = {"classes": name, **CLASS_DEFAULTS}
        if concept:
            options = {"layers": [Target(concept.layer, weight=target.weight, concept=concept)], **CONCEPT_DEFAULTS}
        rows[f"-{name}.png"] = (name, options)
    return rows


if __name__ == "__main__":
    cli.run(main)
