"""VGG-16 and VGG-19 (Simonyan and Zisserman, 2014), in torchvision's layout, which Caffe's weights fit as well."""

import mlx.nn as nn

from .layers import Conv2d, MaxPool2d, ReLU
from .network import FeaturesAndClassifier

WIDTHS = (64, 128, 256, 512, 512)  # of the five blocks


class VGG(FeaturesAndClassifier):
    bins = 7
    depths = ()  # how many convolutions each block has

    def __init__(self, num_classes=1000):
        super().__init__(num_classes)
        self.features = []
        inputs = 3
        for width, depth in zip(WIDTHS, self.depths, strict=True):
            for _ in range(depth):
                self.features += [Conv2d(inputs, width, 3, padding=1), ReLU()]
                inputs = width
            self.features.append(MaxPool2d(2, 2))
        self.classifier = [
            *(nn.Linear(512 * 7 * 7, 4096), ReLU(), nn.Dropout()),
            *(nn.Linear(4096, 4096), ReLU(), nn.Dropout()),
        ]
        if num_classes:
            self.classifier.append(nn.Linear(4096, num_classes))

    def aliases(self):
        return vgg_aliases(self.depths)


class VGG16(VGG):
    depths = (2, 2, 3, 3, 3)


class VGG19(VGG):
    depths = (2, 2, 4, 4, 4)


def vgg_aliases(depths):
    """Return {the paper's and Caffe's name (conv5_1, relu5_1, pool5, fc6 ... fc8): ours}."""
    names = {"fc6": "classifier.0", "relu6": "classifier.1", "fc7": "classifier.3", "relu7": "classifier.4"}
    names["fc8"] = "classifier.6"
    i = 0
    for block, depth in enumerate(depths, 1):
        for conv in range(1, depth + 1):
            names[f"conv{block}_{conv}"], names[f"relu{block}_{conv}"] = f"features.{i}", f"features.{i + 1}"
            i += 2
        names[f"pool{block}"] = f"features.{i}"
        i += 1
    return names
