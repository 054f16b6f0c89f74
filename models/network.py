"""What all networks do: normalise pixels, name their layers, and compute no further than they are asked to."""

import functools
import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from dataset.cli import UsageError, UserError, suggest
from dataset.files import sha256

from .kernels.bands import cut, each, join
from .kernels.pooling import adaptive_avg_pool
from .layers import Conv2d, ReLU, flatten_chw, relu_after


class Network(nn.Module):
    """The base of the architectures. A subclass writes `stages`, and `aliases` if its layers have other names, too.

    Modules are named as in torchvision, so that the path of a parameter is its key in a state dict.
    """

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes  # 0: no classifier; the features are all there is
        self.metadata = None  # a weights_file.Metadata; who builds a network gives it
        self.path = None  # of the weights file

    def stages(self, x, after=None):
        """Yield (name, activation) from the first layer to the logits, which come last. x: N x H x W x 3, normalised;
        or, where `after` names one of `split_points`, that layer's activation, from which the network goes on.

        MLX is lazy: what is yielded costs nothing until it is evaluated, and nothing is built beyond the last
        stage that the caller takes.
        """
        raise NotImplementedError

    split_points = ()  # layers, in order, each all that the rest of the network needs (auxiliary classifiers aside)
    auxiliary = ()  # the names that the auxiliary classifiers have, where there are any

    def aliases(self):
        """Return {name in other programs: name here} of layers."""
        return {}

    def normalise(self, images):
        """Convert images, N x H x W x 3 RGB 0..255, an array or Bands, to what the first layer takes."""
        meta = self.metadata
        mean, scale = mx.array(meta.mean), mx.array(1 / np.array(meta.std, np.float32))
        x = each(lambda x: (x - mean) * scale, images)
        return each(lambda x: x[..., ::-1], x) if meta.channel_order == "BGR" else x

    def activations(
        self, images: np.ndarray | mx.array, names: list[str], dtype: mx.Dtype = mx.float32
    ) -> dict[str, mx.array]:
        """Compute {name: activation} for layers by any of their names, in float32 or float16 arithmetic.

        images: N x H x W x 3 float32, RGB 0..255. Activations are N x H x W x C, those of the classifier N x C.
        Raises UsageError for a wrong name; ValueError (MLX's) for images too small to reach the layer.
        """
        wanted = {name: self.resolve(name) for name in names}
        missing = set(wanted.values())
        found = {}
        x = self.normalise(cut(mx.array(images)))
        for name, activation in self.stages(each(lambda x: x.astype(dtype), x)):
            if name in missing:
                found[name] = join(activation)
                missing.discard(name)
                if not missing:
                    break
        return {name: found[resolved] for name, resolved in wanted.items()}

    def __call__(self, images):
        """Compute the logits, N x classes, of images N x H x W x 3, RGB 0..255."""
        return self.activations(images, ["logits"])["logits"]

    def resolve(self, name):
        """Return torchvision's name of the layer that `name` means; UsageError with suggestions if there is none."""
        if name in self.layer_info:
            return name
        if name in self.all_aliases:
            return self.all_aliases[name]
        names = [*self.layers, *self.all_aliases]
        raise UsageError(f"there is no layer {name!r} in this network: {suggest(name, names)}")

    @property
    def layers(self):
        """The names of all layers that can be dreamed on, from the first to the last."""
        return list(self.layer_info)

    @property
    def classes(self):
        """The names of the classes in the order of the logits, or None where they are not known."""
        return self.metadata.classes

    @functools.cached_property
    def weights_sha256(self):
        """The SHA-256 of the weights file, which every recipe names."""
        return sha256(self.path)

    @functools.cached_property
    def layer_info(self):
        """{layer: (channels, stride)} in order; the stride is in pixels, None after the spatial average."""
        size = 512  # any multiple of 32 shows the strides; nothing is computed, MLX is lazy
        table = {}
        for name, activation in self.stages(mx.zeros((1, size, size, 3))):
            height = activation.shape[1] if activation.ndim == 4 else 0
            # unpadded convolutions take a little off the sides: the stride is the power of two nearby
            table[name] = (activation.shape[-1], 2 ** round(math.log2(size / height)) if height > 7 else None)
        return table

    @functools.cached_property
    def all_aliases(self):
        """{other name: layer}: those of aliases() whose layers are there, and `logits` and `fc` for the last one."""
        known = {alias: name for alias, name in self.aliases().items() if name in self.layer_info}
        last = next(reversed(self.layer_info))
        return known | ({"logits": last, "fc": last} if self.num_classes else {})

    def accepts_size(self, height, width, names):
        """Say whether an image of that size is large enough for the layers `names`: at least their stride on a side."""
        strides = [stride for _, stride in self.layer_info.values() if stride]
        try:
            shapes = [a.shape for a in self.activations(mx.zeros((1, height, width, 3)), names).values()]
        except ValueError:  # a window larger than its input
            return False
        wanted = max(self.layer_info[self.resolve(name)][1] or max(strides) for name in names)
        return min(height, width) >= wanted and all(min(shape) > 0 for shape in shapes)

    def load_arrays(self, arrays, source):
        """Set every parameter from {path: array}. UserError says which are missing, unexpected or misshapen."""
        own = dict(nn.utils.tree_flatten(self.parameters()))
        problems = [f"{key} is missing" for key in own if key not in arrays]
        problems += [f"{key} is unexpected" for key in arrays if key not in own]
        problems += [
            f"{key} is {shape(arrays[key])} where {shape(own[key])} is needed"
            for key in own
            if key in arrays and tuple(arrays[key].shape) != own[key].shape
        ]
        if problems:
            more = f", and {len(problems) - 4} more" if len(problems) > 4 else ""
            raise UserError(f"{source}: the weights do not fit: {'; '.join(problems[:4])}{more}")
        self.load_weights([(key, mx.array(np.asarray(value, np.float32))) for key, value in arrays.items()])


def layers_after(names, after):
    """Return the names that come after `after`; all of them where it is None."""
    names = list(names)
    return names if after is None else names[names.index(after) + 1 :]


class FeaturesAndClassifier(Network):
    """The base of AlexNet and VGG: `features`, a list; averages over `bins` x `bins` windows; `classifier`, a list.

    Without classes it ends at the last pooling, since trunks are published without the layers behind it.
    """

    bins = None

    @property
    def split_points(self):
        return [f"features.{i}" for i in range(len(self.features))]

    def stages(self, x, after=None):
        layer = source = None  # the layer before, and its input
        for name in layers_after(self.split_points, after):
            previous, layer = layer, self.features[int(name.removeprefix("features."))]
            if isinstance(layer, ReLU) and isinstance(previous, Conv2d):
                source, x = x, relu_after(x, previous.with_relu, source)
            else:
                source, x = x, layer(x)
            yield name, x
        if not self.num_classes:
            return
        x = adaptive_avg_pool(x, self.bins)
        yield "avgpool", x
        x = flatten_chw(x)
        for i, layer in enumerate(self.classifier):
            x = layer(x)
            if not isinstance(layer, nn.Dropout):
                yield f"classifier.{i}", x

    def load_arrays(self, arrays, source):
        if not self.num_classes:  # files of earlier versions hold the fully connected layers before it
            arrays = {path: array for path, array in arrays.items() if not path.startswith("classifier.")}
        super().load_arrays(arrays, source)


def shape(array):
    return " x ".join(map(str, array.shape)) or "a number"
