"""How good a network is on some images."""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..kernels.bands import cut, join
from .step import inputs


@dataclass
class Scores:
    """How good a network is on some images."""

    loss: float
    confusion: np.ndarray  # (classes, classes) counts; rows: what they are, columns: what they were taken for
    top5: float  # share, 0..1

    @property
    def top1(self):
        return float(self.confusion.trace() / max(self.confusion.sum(), 1))

    def table(self, classes):
        """Return text: the totals, then a line for each class that has images."""
        count = int(self.confusion.sum())
        lines = [f"{count} pictures: top-1 {self.top1:.1%}, top-5 {self.top5:.1%}, loss {self.loss:.3f}", ""]
        width = max(len(name) for name in classes) + 2
        lines.append(f"{'class':{width}}pictures   right  most often taken for")
        for number, name in enumerate(classes):
            row = self.confusion[number].astype(int)
            if row.any():
                wrong = np.where(np.arange(len(row)) == number, 0, row)
                other = f"  {classes[wrong.argmax()]} ({wrong.max()})" if wrong.any() else ""
                lines.append(f"{name:{width}}{row.sum():8}{row[number] / row.sum():8.1%}{other}")
        return "\n".join(lines)


def evaluate(net, batches, split, group):
    """Return the Scores of the network over all batches of all processes. It is put into eval mode, and left there."""
    net.eval()
    count = net.num_classes
    sums, confusion = np.zeros(2), np.zeros((count, count))
    for batch, labels in batches.epoch():
        *_, (_, logits) = net.stages(cut(inputs(net, batch, split)), after=split)
        logits, targets = join(logits), mx.array(labels)
        own = mx.take_along_axis(logits, targets[:, None], axis=-1)
        loss = nn.losses.cross_entropy(logits, targets).sum()
        top5 = ((logits > own).sum(axis=-1) < 5).sum()
        np.add.at(confusion, (labels, np.array(logits.argmax(axis=-1))), 1)
        sums += [loss.item(), top5.item()]
    flat = mx.array(np.concatenate([sums, confusion.ravel()]), mx.float32)
    flat = np.array(mx.distributed.all_sum(flat, group=group), np.float64)
    confusion = flat[2:].reshape(count, count)
    seen = max(confusion.sum(), 1)
    return Scores(float(flat[0] / seen), confusion, float(flat[1] / seen))
