"""AlexNet in torchvision's layout (Krizhevsky, One weird trick for parallelizing convolutional networks, 2014)."""

import mlx.nn as nn

from .layers import Conv2d, MaxPool2d, ReLU
from .network import FeaturesAndClassifier


class AlexNet(FeaturesAndClassifier):
    bins = 6

    def __init__(self, num_classes=1000):
        super().__init__(num_classes)
        self.features = [
            *(Conv2d(3, 64, 11, stride=4, padding=2), ReLU(), MaxPool2d(3, 2)),
            *(Conv2d(64, 192, 5, padding=2), ReLU(), MaxPool2d(3, 2)),
            *(Conv2d(192, 384, 3, padding=1), ReLU()),
            *(Conv2d(384, 256, 3, padding=1), ReLU()),
            *(Conv2d(256, 256, 3, padding=1), ReLU(), MaxPool2d(3, 2)),
        ]
        self.classifier = [
            *(nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), ReLU()),
            *(nn.Dropout(), nn.Linear(4096, 4096), ReLU()),
        ]
        if num_classes:
            self.classifier.append(nn.Linear(4096, num_classes))

    def aliases(self):
        """Return {Caffe's name (conv1 ... conv5, relu1 ... relu5, pool1, pool2, pool5, fc6 ... fc8): ours}."""
        names = {"fc6": "classifier.1", "relu6": "classifier.2", "fc7": "classifier.4", "relu7": "classifier.5"}
        names |= {"fc8": "classifier.6", "pool1": "features.2", "pool2": "features.5", "pool5": "features.12"}
        for number, i in enumerate((0, 3, 6, 8, 10), 1):
            names[f"conv{number}"], names[f"relu{number}"] = f"features.{i}", f"features.{i + 1}"
        return names
