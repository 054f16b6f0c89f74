"""GoogLeNet as torchvision has it: batch norm everywhere, 3x3 convolutions in the "5x5" branch.

Szegedy et al., Going Deeper with Convolutions, 2014. The Caffe network of 2015, in googlenet_bvlc.py, is a variation
on it: what differs there is a class attribute here.
"""

import mlx.nn as nn

from .kernels import relu as relu_kernels
from .kernels.arrays import on_cpu
from .kernels.inception import Kernel, heads_cpu, inception_gpu
from .kernels.pooling import adaptive_avg_pool
from .kernels.relu import concatenate, relu
from .layers import BasicConv2d, MaxPool2d, flatten_chw
from .network import Network, layers_after

# what follows each stage, and its widths: input, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection
INCEPTION = {
    "inception3a": (192, 64, 96, 128, 16, 32, 32),
    "inception3b": (256, 128, 128, 192, 32, 96, 64),
    "inception4a": (480, 192, 96, 208, 16, 48, 64),
    "inception4b": (512, 160, 112, 224, 24, 64, 64),
    "inception4c": (512, 128, 128, 256, 24, 64, 64),
    "inception4d": (512, 112, 144, 288, 32, 64, 64),
    "inception4e": (528, 256, 160, 320, 32, 128, 128),
    "inception5a": (832, 256, 160, 320, 32, 128, 128),
    "inception5b": (832, 384, 192, 384, 48, 128, 128),
}


class Inception(nn.Module):
    def __init__(self, conv, size5x5, inputs, n1x1, n3x3_reduce, n3x3, n5x5_reduce, n5x5, pool_proj):
        super().__init__()
        self.branch1 = conv(inputs, n1x1, 1)
        self.branch2 = [conv(inputs, n3x3_reduce, 1), conv(n3x3_reduce, n3x3, 3, padding=1)]
        self.branch3 = [conv(inputs, n5x5_reduce, 1), conv(n5x5_reduce, n5x5, size5x5, padding=size5x5 // 2)]
        self.branch4 = [MaxPool2d(3, 1, padding=1), conv(inputs, pool_proj, 1)]

    def stages(self, name, x):
        output, *starts = self.starts(x)
        outputs = [output]
        yield f"{name}.branch1", output
        for branch, start in zip(("branch2", "branch3", "branch4"), (*starts, self.branch4[0](x)), strict=True):
            yield f"{name}.{branch}.0", start
            outputs.append(self[branch][1](start))
            yield f"{name}.{branch}.1", outputs[-1]
        if on_cpu() or self.training or relu_kernels.redirected:
            output = concatenate(outputs)
        else:
            output = inception_gpu(x, folded(self.heads(), x.dtype), folded(self.tails(), x.dtype))
        yield name, output
        return output

    def starts(self, x):
        """Return what the blocks make of the input that convolve it: on a CPU in one."""
        heads = self.heads()
        by_batch = {head.by_batch for head in heads}
        if relu_kernels.redirected or not on_cpu() or len(by_batch) > 1:
            return [head(x) for head in heads]
        if by_batch == {True}:
            kernels = [Kernel(*head.conv.parameters_for(x), head.conv.cached) for head in heads]
            return [head.after(y) for head, y in zip(heads, heads_cpu(x, kernels, relu=False), strict=True)]
        before_relu, *starts = heads_cpu(x, folded(heads, x.dtype))
        return [relu(before_relu), *starts]

    def heads(self):
        """Return the blocks that convolve the input."""
        return self.branch1, self.branch2[0], self.branch3[0]

    def tails(self):
        """Return the blocks behind those and behind the pooling."""
        return self.branch2[1], self.branch3[1], self.branch4[1]


def folded(blocks, dtype):
    """Return the Kernels of blocks with fixed statistics."""
    return [Kernel(*block.folded(dtype), block.conv.cached) for block in blocks]


class InceptionAux(nn.Module):
    """The auxiliary classifiers of the paper, which training uses and prediction does not."""

    def __init__(self, conv, pool, inputs, num_classes):
        super().__init__()
        self.pool = pool
        self.conv = conv(inputs, 128, 1)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, num_classes)
        self.dropout = nn.Dropout(0.7)

    def __call__(self, x):
        x = self.conv(self.pool(x))
        return self.fc2(self.dropout(relu(self.fc1(flatten_chw(x)))))


class GoogLeNet(Network):
    conv = BasicConv2d
    size5x5 = 3  # torchvision's well-known slip, in which its weights were trained
    size_pool4 = 2
    dropout_rate = 0.2
    stem = ("conv1", "maxpool1", "conv2", "conv3", "maxpool2")
    tower = (
        *("inception3a", "inception3b", "maxpool3"),
        *("inception4a", "aux1", "inception4b", "inception4c", "inception4d", "aux2", "inception4e", "maxpool4"),
        *("inception5a", "inception5b", "avgpool"),
    )
    auxiliary = ("aux1", "aux2")

    def __init__(self, num_classes=1000, aux=False):
        super().__init__(num_classes)
        self.conv1 = self.conv(3, 64, 7, stride=2, padding=3)
        self.maxpool1 = MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = self.conv(64, 64, 1)
        self.conv3 = self.conv(64, 192, 3, padding=1)
        self.maxpool2 = MaxPool2d(3, 2, ceil_mode=True)
        for name, widths in INCEPTION.items():
            self[name] = Inception(self.conv, self.size5x5, *widths)
        self.maxpool3 = MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool4 = MaxPool2d(self.size_pool4, 2, ceil_mode=True)
        if num_classes:
            self.dropout = nn.Dropout(self.dropout_rate)
            self.fc = nn.Linear(1024, num_classes)
        if num_classes and aux:
            self.aux1 = InceptionAux(self.conv, self.aux_pool, 512, num_classes)
            self.aux2 = InceptionAux(self.conv, self.aux_pool, 528, num_classes)

    @staticmethod
    def aux_pool(x):
        return adaptive_avg_pool(x, 4)

    @property
    def split_points(self):
        return [name for name in (*self.stem, *self.tower) if name not in self.auxiliary]

    def stages(self, x, after=None):
        for name in layers_after((*self.stem, *self.tower), after):
            if name in self.auxiliary:
                if name in self:
                    yield name, self[name](x)
            elif name.startswith("inception"):
                x = yield from self[name].stages(name, x)
            else:
                x = x.mean(axis=(1, 2)) if name == "avgpool" else self[name](x)
                yield name, x
        if "fc" in self:
            yield "fc", self.fc(self.dropout(x))

    def aliases(self):
        return googlenet_aliases()


def googlenet_aliases():
    """Return {name in Caffe (BVLC), lucid and its TensorFlow graph, dream-creator or neural-dream: ours}."""
    caffe = {"conv1": "conv1/7x7_s2", "conv2": "conv2/3x3_reduce", "conv3": "conv2/3x3", "fc": "loss3/classifier"}
    caffe |= {f"maxpool{i}": f"pool{i}/3x3_s2" for i in (1, 2, 3, 4)} | {"avgpool": "pool5/7x7_s1"}
    caffe |= {"norm1": "pool1/norm1", "norm2": "conv2/norm2", "aux1": "loss1/classifier", "aux2": "loss2/classifier"}
    names = {theirs: ours for ours, theirs in caffe.items()}
    names |= {"conv2d0": "conv1", "conv2d1": "conv2", "conv2d2": "conv3", "softmax2_pre_activation": "fc"}
    inner = {
        # ours: Caffe's, lucid's
        "branch1": ("1x1", "1x1"),
        "branch2.0": ("3x3_reduce", "3x3_bottleneck"),
        "branch2.1": ("3x3", "3x3"),
        "branch3.0": ("5x5_reduce", "5x5_bottleneck"),
        "branch3.1": ("5x5", "5x5"),
        "branch4.0": ("pool", "pool"),
        "branch4.1": ("pool_proj", "pool_reduce"),
    }
    for module in INCEPTION:
        stage = module.removeprefix("inception")
        names[f"inception_{stage}/output"] = names[f"mixed{stage}"] = names[f"inception_{stage}"] = module
        for ours, (theirs, lucids) in inner.items():
            names[f"inception_{stage}/{theirs}"] = names[f"inception_{stage}_{theirs}"] = f"{module}.{ours}"
            names[f"mixed{stage}_{lucids}"] = names[f"mixed{stage}.{theirs}"] = f"{module}.{ours}"
            names[f"mixed{stage}.conv_{theirs}"] = f"{module}.{ours}"
        for branch in ("branch2", "branch3", "branch4"):
            names[f"{module}.{branch}"] = f"{module}.{branch}.1"
    return names
