"""Inception v3 in torchvision's layout (Szegedy et al., Rethinking the Inception Architecture, 2015)."""

import mlx.nn as nn

from .kernels.bands import join
from .kernels.pooling import adaptive_avg_pool, avg_pool_3x3, max_pool
from .kernels.relu import concatenate
from .layers import BasicConv2d, MaxPool2d
from .network import Network, layers_after

# The branches of a module: chains of convolutions (width, kernel), each chain's name being what torchvision calls it.
# A list at the end of a chain holds two convolutions side by side.


def figure5(pool):
    return {
        "branch1x1": [(64, 1)],
        "branch5x5": [(48, 1), (64, 5)],
        "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
        "branch_pool": [(pool, 1)],
    }


def figure6(width):
    return {
        "branch1x1": [(192, 1)],
        "branch7x7": [(width, 1), (width, (1, 7)), (192, (7, 1))],
        "branch7x7dbl": [(width, 1), (width, (7, 1)), (width, (1, 7)), (width, (7, 1)), (192, (1, 7))],
        "branch_pool": [(192, 1)],
    }


FIGURE7 = {
    "branch1x1": [(320, 1)],
    "branch3x3": [(384, 1), [(384, (1, 3)), (384, (3, 1))]],
    "branch3x3dbl": [(448, 1), (384, 3), [(384, (1, 3)), (384, (3, 1))]],
    "branch_pool": [(192, 1)],
}

# The two that halve the map: the last convolution of a chain has stride 2, and so has a maximum pool beside them
REDUCTION1 = {
    "branch3x3": [(384, 3)],
    "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
}
REDUCTION2 = {
    "branch3x3": [(192, 1), (320, 3)],
    "branch7x7x3": [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)],
}

# module: (input width, branches), in order
MIXED = {
    "Mixed_5b": (192, figure5(32)),
    "Mixed_5c": (256, figure5(64)),
    "Mixed_5d": (288, figure5(64)),
    "Mixed_6a": (288, REDUCTION1),
    "Mixed_6b": (768, figure6(128)),
    "Mixed_6c": (768, figure6(160)),
    "Mixed_6d": (768, figure6(160)),
    "Mixed_6e": (768, figure6(192)),
    "Mixed_7a": (768, REDUCTION2),
    "Mixed_7b": (1280, FIGURE7),
    "Mixed_7c": (2048, FIGURE7),
}


def convolutions(branch, chain):
    """Yield, for each step of a chain, its convolutions as (torchvision's name, width, kernel)."""
    for number, step in enumerate(chain, 1):
        name = branch if len(chain) == 1 else f"{branch}_{number}"
        if isinstance(step, list):
            yield [(name + letter, *conv) for letter, conv in zip("ab", step, strict=True)]
        else:
            yield [(name, *step)]


class Mixed(nn.Module):
    def __init__(self, inputs, branches):
        super().__init__()
        for branch, chain in branches.items():
            width = inputs
            for number, step in enumerate(convolutions(branch, chain), 1):
                for name, outputs, kernel in step:
                    rows, columns = kernel if isinstance(kernel, tuple) else (kernel, kernel)
                    if "branch_pool" not in branches and number == len(chain):
                        self[name] = BasicConv2d(width, outputs, kernel, stride=2)
                    else:
                        self[name] = BasicConv2d(width, outputs, kernel, padding=(rows // 2, columns // 2))
                width = outputs

    def stages(self, name, x):
        _, branches = MIXED[name]
        outputs = []
        for branch, chain in branches.items():
            ends = [avg_pool_3x3(x) if branch == "branch_pool" else x]
            for step in convolutions(branch, chain):
                ends = [self[conv](ends[0]) for conv, _, _ in step]
                for (conv, _, _), y in zip(step, ends, strict=True):
                    yield f"{name}.{conv}", y
            outputs += ends
        if "branch_pool" not in branches:
            outputs.append(max_pool(x, 3, 2))
            yield f"{name}.branch_pool", outputs[-1]
        output = concatenate(outputs)
        yield name, output
        return output


class InceptionAux(nn.Module):
    """The auxiliary classifier, which training uses and prediction does not.

    It was laid out for the 17 x 17 cells of 299 x 299 pixels, and torchvision's takes no less than that. Here its
    windows shrink with a smaller map, so that one can train on smaller images.
    """

    def __init__(self, inputs, num_classes):
        super().__init__()
        self.conv0 = BasicConv2d(inputs, 128, 1)
        self.conv1 = BasicConv2d(128, 768, 5)
        self.fc = nn.Linear(768, num_classes)

    def __call__(self, x):
        x = join(x)
        x = nn.AvgPool2d(5, 3)(x) if min(x.shape[1:3]) >= 17 else adaptive_avg_pool(x, 17, kernel_size=5, stride=3)
        return self.fc(self.conv1(self.conv0(x)).mean(axis=(1, 2)))


class InceptionV3(Network):
    stem = (
        *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"),
        *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    )
    split_points = (*stem, *MIXED, "avgpool")
    auxiliary = ("AuxLogits",)

    def __init__(self, num_classes=1000, aux=False):
        super().__init__(num_classes)
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3, padding=1)
        self.maxpool1 = MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3)
        self.maxpool2 = MaxPool2d(3, 2)
        for name, (inputs, branches) in MIXED.items():
            self[name] = Mixed(inputs, branches)
        if num_classes:
            self.dropout = nn.Dropout(0.5)
            self.fc = nn.Linear(2048, num_classes)
        if num_classes and aux:
            self.AuxLogits = InceptionAux(768, num_classes)

    def stages(self, x, after=None):
        for name in layers_after(self.split_points, after):
            if name == "Mixed_7a" and "AuxLogits" in self:
                yield "AuxLogits", self.AuxLogits(x)  # of Mixed_6e
            if name in MIXED:
                x = yield from self[name].stages(name, x)
            else:
                x = x.mean(axis=(1, 2)) if name == "avgpool" else self[name](x)
                yield name, x
        if "fc" in self:
            yield "fc", self.fc(self.dropout(x))

    def aliases(self):
        """Return {name in Keras (mixed0 ...), TensorFlow's graph of 2015 (mixed, mixed_1 ...) or TF-Slim: ours}."""
        names = {"mixed": "Mixed_5b", "mixed/join": "Mixed_5b"}
        names |= {"MaxPool_3a_3x3": "maxpool1", "MaxPool_5a_3x3": "maxpool2", "Logits": "fc"}
        for i, name in enumerate(MIXED):
            names[f"mixed{i}"] = names[f"mixed_{i}"] = names[f"mixed_{i}/join"] = name
            names[name.lower()] = names[name.lower().replace("_", "")] = name
        return names
