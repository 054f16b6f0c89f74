"""ResNet-50 in torchvision's layout: "v1.5", whose stride sits in the 3x3 convolution (He et al., 2015)."""

import mlx.nn as nn

from .kernels.relu import relu
from .layers import Conv2d, MaxPool2d, conv_bn
from .network import Network, layers_after

STAGES = {"layer1": (64, 3), "layer2": (128, 4), "layer3": (256, 6), "layer4": (512, 3)}  # name: (width, blocks)
EXPANSION = 4


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = width * EXPANSION
        self.conv1 = Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm(width)
        self.conv2 = Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm(width)
        self.conv3 = Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm(outputs)
        if stride > 1 or inputs != outputs:
            self.downsample = [Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm(outputs)]

    def stages(self, name, x):
        """Yield torchvision's modules, and after bn1 and bn2 what the ReLU makes of them (relu1, relu2)."""
        y = x
        for i in (1, 2, 3):
            conv, bn = self[f"conv{i}"], self[f"bn{i}"]
            yield f"{name}.conv{i}", conv(y)
            y = conv_bn(conv, bn, y)
            yield f"{name}.bn{i}", y
            if i < 3:
                y = relu(y)
                yield f"{name}.relu{i}", y
        if "downsample" in self:
            yield f"{name}.downsample.0", self.downsample[0](x)
            x = conv_bn(*self.downsample, x)
            yield f"{name}.downsample.1", x
        output = relu(x + y)
        yield name, output
        return output


class ResNet50(Network):
    split_points = (
        "maxpool",
        *(f"{stage}.{i}" for stage, (_, blocks) in STAGES.items() for i in range(blocks)),
        "avgpool",
    )

    def __init__(self, num_classes=1000):
        super().__init__(num_classes)
        self.conv1 = Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm(64)
        self.maxpool = MaxPool2d(3, 2, padding=1)
        inputs = 64
        for stage, (width, blocks) in STAGES.items():
            self[stage] = []
            for block in range(blocks):
                stride = 2 if block == 0 and stage != "layer1" else 1
                self[stage].append(Bottleneck(inputs, width, stride))
                inputs = width * EXPANSION
        if num_classes:
            self.fc = nn.Linear(inputs, num_classes)

    def stages(self, x, after=None):
        if after is None:
            yield "conv1", self.conv1(x)
            x = conv_bn(self.conv1, self.bn1, x)
            yield "bn1", x
            x = relu(x)
            yield "relu", x
        for name in layers_after(self.split_points, after):
            if "." in name:
                stage, block = name.split(".")
                x = yield from self[stage][int(block)].stages(name, x)
            else:
                x = x.mean(axis=(1, 2)) if name == "avgpool" else self.maxpool(x)
                yield name, x
        if "fc" in self:
            yield "fc", self.fc(x)

    def aliases(self):
        """Return {stage, or a block's `downsample` as a whole: its last layer}."""
        names = {stage: f"{stage}.{blocks - 1}" for stage, (_, blocks) in STAGES.items()}
        return names | {f"{stage}.0.downsample": f"{stage}.0.downsample.1" for stage in STAGES}
