"""The GoogLeNet of 2015, from Caffe's model zoo: what Google's DeepDream notebook ran on. Places365 has it, too.

Biases and no batch norm, local response normalisation in the stem, true 5x5 convolutions, a 3x3 pool before
inception5a; torchvision's names. Its weights take BGR, 0..255 minus the mean.
"""

import mlx.nn as nn

from .googlenet import GoogLeNet
from .kernels.pooling import adaptive_avg_pool
from .layers import LRN, Conv2d


class ConvReLU(nn.Module):
    by_batch = False

    def __init__(self, inputs, outputs, kernel_size, stride=1, padding=0):
        super().__init__()
        self.conv = Conv2d(inputs, outputs, kernel_size, stride, padding)

    def __call__(self, x):
        return self.conv.with_relu(x)

    def folded(self, dtype):
        """Return (weight, bias), as `dtype`."""
        return self.conv.in_precision(dtype, self.conv.weight, self.conv.bias)


class BVLC(GoogLeNet):
    conv = ConvReLU
    size5x5 = 5
    size_pool4 = 3
    dropout_rate = 0.4
    stem = ("conv1", "maxpool1", "norm1", "conv2", "conv3", "norm2", "maxpool2")

    def __init__(self, num_classes=1000, aux=False):
        super().__init__(num_classes, aux)
        self.norm1 = LRN()
        self.norm2 = LRN()

    @staticmethod
    def aux_pool(x):
        """5x5 averages at stride 3 of the 14 x 14 cells that an image of 224 x 224 has there: 4 x 4. Caffe's
        classifier takes no other number, so on other images the windows grow or shrink with the image.
        """
        return adaptive_avg_pool(x, 14, kernel_size=5, stride=3)
