"""What benchmark.py compares with: the same steps, dreams and fine-tuning in PyTorch eager, channels last.

torchvision's networks, with random weights.
"""

import numpy as np
import torch


def import_torchvision():
    import torch

    try:
        import torchvision
    except RuntimeError:  # built for CUDA, it misses two operators on a CPU, which dreaming does not need
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision


def upto(net, layer):
    """The children of a network in order, up to `layer`; torchvision's run in the order of their definition."""
    children = []
    for name, child in net.named_children():
        children.append(child)
        if name == layer:
            return children
    raise ValueError(layer)


def ascent(network, layer):
    """Return a function (image 1 x 3 x H x W, 0..255; steps; rng) -> image: gradient ascent with frozen weights."""
    torchvision = import_torchvision()
    options = {"init_weights": False} if network != "resnet50" else {}
    options |= {"aux_logits": False} if network == "googlenet" else {}
    net = getattr(torchvision.models, network)(weights=None, **options)
    net = net.eval().to(memory_format=torch.channels_last).requires_grad_(False)
    found = {}
    net.get_submodule(layer).register_forward_hook(lambda module, inputs, output: found.update(a=output))
    children = list(net.features[:23]) if network == "vgg16" else upto(net, layer)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4]))

    def ascend(image, steps, rng):
        for _ in range(steps):
            shift = [int(s) for s in rng.integers(-32, 33, 2)]
            x = source = torch.roll(image, shift, dims=(2, 3)).requires_grad_()
            x = (x - mean) / std
            for child in children:
                x = child(x)
            (found["a"].square().mean() / 2).backward()
            g = source.grad
            moved = source.detach() + 1.5 / g.abs().mean() * g
            image = torch.roll(moved, [-s for s in shift], dims=(2, 3)).clip_(0, 255)
        return image

    return ascend


def tensor(picture):
    """Return H x W x 3 as 1 x 3 x H x W, channels last."""
    return torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)


def stepper(network, layer, picture):
    """Return a function that takes so many steps on a picture H x W x 3."""
    ascend, image, rng = ascent(network, layer), tensor(picture), np.random.default_rng(0)

    def take_steps(count):
        nonlocal image
        image = ascend(image, count, rng)

    return take_steps


def dreamer(layer, picture, sizes, steps):
    """Return a function that dreams a picture H x W x 3 with googlenet, in octaves of `sizes`, the largest first."""
    ascend, image = ascent("googlenet", layer), tensor(picture)

    def resized(image, size):
        return torch.nn.functional.interpolate(image, size, mode="bilinear", align_corners=True)

    def take_dreams(count):
        for _ in range(count):
            rng, detail = np.random.default_rng(0), torch.zeros_like(resized(image, sizes[-1]))
            for size in reversed(sizes):
                base = resized(image, size)
                detail = ascend(base + resized(detail, size), steps, rng) - base

    return take_dreams


def trainer(frozen_to, batch, size):
    """Return a function that takes so many steps of fine-tuning on `batch` pictures of size x size."""
    torchvision = import_torchvision()
    net = torchvision.models.googlenet(weights=None, num_classes=2, aux_logits=False, init_weights=False)
    net = net.train().to(memory_format=torch.channels_last)
    for child in upto(net, frozen_to):
        child.eval().requires_grad_(False)
    learned = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, 0.01, momentum=0.9, weight_decay=1e-4)
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 2

    def take_steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images), labels).backward()
            torch.nn.utils.clip_grad_norm_(learned, 5.0)
            optimizer.step()

    return take_steps
