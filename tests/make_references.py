"""Make tests/references/*.npy anew: what other people's implementations say the networks compute.

    pip install torch torchvision && python tests/make_references.py [NETWORK ...]

torchvision runs in float64 on the weights and pictures of seeded.py, so that its rounding is no part of what the
tests measure. `--verbose` prints every activation's size and spread, which shows that none has died out.
"""

import argparse
import re

import numpy as np
import torch
from seeded import CASES, CLASSES, REFERENCES, TABLE, digest, picture, weights
from torchvision import models as torchvision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# transform_input, as in the pretrained GoogLeNet and Inception v3, turns statistics of ImageNet into 2x - 1
TORCHVISION = {
    "alexnet": lambda: torchvision.alexnet(num_classes=CLASSES),
    "googlenet": lambda: torchvision.GoogLeNet(CLASSES, aux_logits=True, transform_input=True, init_weights=False),
    "vgg16": lambda: torchvision.vgg16(num_classes=CLASSES),
    "vgg19": lambda: torchvision.vgg19(num_classes=CLASSES),
    "resnet50": lambda: torchvision.resnet50(num_classes=CLASSES),
}
# parts of the layers that have a name in MLX, too: convolution and batch norm of a BasicConv2d, auxiliary classifiers
INNER = re.compile(r"\.(conv|bn|relu3)$|^aux\d\.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    for name in args.networks or CASES:
        rows = [row(*pair, args.verbose) for pair in references(name).items()]
        np.save(REFERENCES / f"{name}.npy", np.array(rows, TABLE))
        print(f"{name}: {len(rows)} references")


def row(name, value, verbose):
    array = value.detach().numpy()
    if array.ndim == 4:
        array = array.transpose(0, 2, 3, 1)
        if array.shape[1:3] == (1, 1):
            array = array[:, 0, 0]
    largest, values = digest(array)
    if verbose:
        spread = array.std(axis=(1, 2)).mean() if array.ndim == 4 else array.std()
        print(
            f"{name:40}{array.shape!s:22} largest {largest:9.4g}  rms {array.std():9.4g}  within a channel {spread:.4g}"
        )
    assert len(name) <= TABLE["name"].itemsize
    return name, (array.shape + (0, 0))[:4], largest, values


def references(name):
    """{layer: N x C x H x W}, and {"gradient of LAYER": N x 3 x H x W}."""
    case = CASES[name]
    images = torch.tensor(picture(case.batch, *case.size), dtype=torch.float64).permute(0, 3, 1, 2).requires_grad_()
    found = torchvision_activations(name, images)
    for layer in case.gradients:
        (gradient,) = torch.autograd.grad((found[layer] ** 2).sum() / 2, images, retain_graph=True)
        found[f"gradient of {layer}"] = gradient
    return found


def torchvision_activations(name, images):
    """What every module of torchvision's network puts out."""
    net = TORCHVISION[name]().double().eval()
    shapes = {k: tuple(v.shape) for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    state = {k: torch.from_numpy(v).double() for k, v in weights(shapes, CASES[name]).items()}
    net.load_state_dict(state, strict=False)
    found = {}

    def keep(key):
        def hook(module, inputs, output):
            calls = 1 + sum(f"{key}{i}" in found for i in (1, 2))
            # a residual block calls one ReLU three times, the last time for its own output
            name = f"{key}{calls}" if key.startswith("layer") and key.endswith("relu") else key
            found[name] = output.clone()  # the ReLUs that follow work in place

        return hook

    for key, module in net.named_modules():
        if key and not isinstance(module, (torch.nn.Sequential, torch.nn.Dropout)):
            module.register_forward_hook(keep(key))
    mean, std = (torch.tensor(values, dtype=torch.float64).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    net((images / 255 - mean) / std)
    if name == "googlenet":  # eval mode leaves the auxiliary classifiers out
        net.aux1(found["inception4a"].clone())
        net.aux2(found["inception4d"].clone())
    return {key: value for key, value in found.items() if not INNER.search(key)}


if __name__ == "__main__":
    main()
