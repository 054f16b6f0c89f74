"""Make tests/references/*.npy anew: what other people's implementations say the networks compute.

    pip install torch torchvision "opencv-python-headless<5"  # 5 has no reader of Caffe models
    PYTHONPATH=tests python tests/tools/make_references.py [TABLE ...]

torchvision runs in float64 on the weights and pictures of seeded.py, so that its rounding is no part of what the
tests measure. The Caffe networks are described to OpenCV's reader of Caffe models, and the same description run
through torch's functions must agree; torch also gives the gradients, which OpenCV has not.
`--verbose` prints every activation's size and spread, which shows that none has died out.
"""

import argparse
import re
import struct

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from seeded import CASES, CLASSES, HEADS, POOLS, REFERENCES, TABLE, digest, draw, picture, weights
from torchvision import models as torchvision

# transform_input, of torchvision's pretrained GoogLeNet and Inception v3, turns ImageNet's statistics into 2x - 1
TORCHVISION = {
    "alexnet": lambda: torchvision.alexnet(num_classes=CLASSES),
    "googlenet": lambda: torchvision.GoogLeNet(CLASSES, aux_logits=True, transform_input=True, init_weights=False),
    "inception_v3": lambda: torchvision.Inception3(CLASSES, aux_logits=True, transform_input=True, init_weights=False),
    "vgg16": lambda: torchvision.vgg16(num_classes=CLASSES),
    "vgg19": lambda: torchvision.vgg19(num_classes=CLASSES),
    "resnet50": lambda: torchvision.resnet50(num_classes=CLASSES),
}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean, std of RGB in 0..1
CAFFE = {"googlenet_bvlc": (104, 117, 123), "googlenet_places365": (104.051, 112.514, 116.676)}  # mean of BGR in 0..255

# parts of the layers that have a name in MLX, too: convolution and batch norm of a BasicConv2d, auxiliary classifiers
INNER = re.compile(r"\.(conv|bn|relu3)$|^aux\d\.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join([*CASES, 'heads', 'layers'])}")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    others = {"heads": heads, "layers": layers}
    for name in args.tables or [*CASES, *others]:
        found = others[name]() if name in others else network(name)
        np.save(REFERENCES / f"{name}.npy", np.array([row(*pair, args.verbose) for pair in found.items()], TABLE))
        print(f"{name}: {len(found)} references")


def row(name, value, verbose):
    """One row of a table, from an N x C x H x W or N x C tensor."""
    array = value.detach().numpy()
    if array.ndim == 4:
        array = array.transpose(0, 2, 3, 1)
        if array.shape[1:3] == (1, 1):
            array = array[:, 0, 0]
    largest, values = digest(array)
    if verbose:
        spread = array.std(axis=(1, 2)).mean() if array.ndim == 4 else array.std()
        print(f"{name:40}{array.shape!s:22} largest {largest:9.4g}  rms {array.std():9.4g}  in a channel {spread:9.4g}")
    assert len(name) <= TABLE["name"].itemsize
    return name, (array.shape + (0, 0, 0))[:4], largest, values


def network(name):
    """{layer: activation}, and {"gradient of LAYER": gradient with respect to the picture}."""
    case = CASES[name]
    images = torch.tensor(picture(case.batch, *case.size)).double().permute(0, 3, 1, 2).requires_grad_()
    found = caffe_activations(name, images) if name in CAFFE else torchvision_activations(name, images)
    for layer in case.gradients:
        (gradient,) = torch.autograd.grad((found[layer] ** 2).sum() / 2, images, retain_graph=True)
        found[f"gradient of {layer}"] = gradient
    return found


def heads():
    found = {}
    for (name, head), (batch, height, width, channels) in HEADS.items():
        x = torch.tensor(draw(head, (batch, height, width, channels))).double().permute(0, 3, 1, 2)
        if name in CAFFE:
            found[f"{name} {head}"] = run_caffe(auxiliary(head, "data"), x, CASES[name])[head]
        else:
            found[f"{name} {head}"] = torchvision_network(name).get_submodule(head)(x)
    return found


def layers():
    """The shared layers on every small size, where their special cases are."""
    found = {}

    def add(name, function, sizes):
        outputs, gradients = [], []
        for height in sizes:
            for width in sizes:
                x = torch.tensor(draw(name, (1, height, width, 7))).double().permute(0, 3, 1, 2).requires_grad_()
                y = function(x)
                (gradient,) = torch.autograd.grad((y**2).sum() / 2, x)
                outputs.append(y.permute(0, 2, 3, 1).reshape(-1))
                gradients.append(gradient.permute(0, 2, 3, 1).reshape(-1))
        found[name], found[f"gradient of {name}"] = torch.cat(outputs), torch.cat(gradients)

    for kernel, stride, padding, ceil in POOLS:
        name = f"max_pool {kernel} {stride} {padding} {ceil}"
        add(name, lambda x, pool=(kernel, stride, padding, 1, ceil): F.max_pool2d(x, *pool), range(3, 12))
    for size in (4, 6, 7):
        add(f"adaptive_avg_pool {size}", lambda x, size=size: F.adaptive_avg_pool2d(x, size), range(1, 16))
    add("avg_pool_3x3", lambda x: F.avg_pool2d(x, 3, 1, padding=1), range(1, 6))
    add("lrn", lambda x: F.local_response_norm(300 * x, 5, alpha=1e-4, beta=0.75, k=1), range(1, 4))
    return found


# torchvision


def torchvision_network(name):
    net = TORCHVISION[name]().double().eval()
    shapes = {k: tuple(v.shape) for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    state = {k: torch.from_numpy(v).double() for k, v in weights(shapes, CASES[name]).items()}
    net.load_state_dict(state, strict=False)
    return net


def torchvision_activations(name, images):
    """What every module of torchvision's network puts out."""
    net = torchvision_network(name)
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
    mean, std = (torch.tensor(values, dtype=torch.float64).reshape(1, 3, 1, 1) for values in IMAGENET)
    net((images / 255 - mean) / std)
    if name == "googlenet":  # eval mode leaves the auxiliary classifiers out
        net.aux1(found["inception4a"].clone())
        net.aux2(found["inception4d"].clone())
    if name == "inception_v3":  # pools that are no modules
        found["Mixed_6a.branch_pool"] = F.max_pool2d(found["Mixed_5d"], 3, 2)
        found["Mixed_7a.branch_pool"] = F.max_pool2d(found["Mixed_6e"], 3, 2)
    return {key: value for key, value in found.items() if not INNER.search(key)}


# Caffe's GoogLeNet, as a list of layers (type, name, inputs, parameters). A layer is called what it is called in MLX,
# where the ReLU belongs to the convolution: `conv1` is the ReLU, `conv1.conv` the convolution.


def convolution(name, bottom, width, size=1, pad=0, stride=1):
    options = {"num_output": width, "kernel_size": size, "pad": pad, "stride": stride}
    yield "Convolution", f"{name}.conv", [bottom], options
    yield "ReLU", name, [f"{name}.conv"], {}


def pool(name, bottom, kind, size, stride, pad=0):
    return "Pooling", name, [bottom], {"pool": kind, "kernel_size": size, "stride": stride, "pad": pad}


def lrn(name, bottom):
    return "LRN", name, [bottom], {"local_size": 5, "alpha": 0.0001, "beta": 0.75}


def linear(name, bottom, width):
    return "InnerProduct", name, [bottom], {"num_output": width}


def inception(name, bottom, n1x1, n3x3_reduce, n3x3, n5x5_reduce, n5x5, pool_proj):
    yield from convolution(f"{name}.branch1", bottom, n1x1)
    yield from convolution(f"{name}.branch2.0", bottom, n3x3_reduce)
    yield from convolution(f"{name}.branch2.1", f"{name}.branch2.0", n3x3, 3, 1)
    yield from convolution(f"{name}.branch3.0", bottom, n5x5_reduce)
    yield from convolution(f"{name}.branch3.1", f"{name}.branch3.0", n5x5, 5, 2)
    yield pool(f"{name}.branch4.0", bottom, "MAX", 3, 1, 1)
    yield from convolution(f"{name}.branch4.1", f"{name}.branch4.0", pool_proj)
    yield "Concat", name, [f"{name}.{branch}" for branch in ("branch1", "branch2.1", "branch3.1", "branch4.1")], {}


def auxiliary(name, bottom):
    yield pool(f"{name}.pool", bottom, "AVE", 5, 3)
    yield from convolution(f"{name}.conv", f"{name}.pool", 128)
    yield linear(f"{name}.fc1", f"{name}.conv", 1024)
    yield "ReLU", f"{name}.relu", [f"{name}.fc1"], {}
    yield linear(f"{name}.fc2", f"{name}.relu", CLASSES)
    yield "Split", name, [f"{name}.fc2"], {}


def caffe_googlenet():
    yield from convolution("conv1", "data", 64, 7, 3, 2)
    yield pool("maxpool1", "conv1", "MAX", 3, 2)
    yield lrn("norm1", "maxpool1")
    yield from convolution("conv2", "norm1", 64)
    yield from convolution("conv3", "conv2", 192, 3, 1)
    yield lrn("norm2", "conv3")
    yield pool("maxpool2", "norm2", "MAX", 3, 2)
    yield from inception("inception3a", "maxpool2", 64, 96, 128, 16, 32, 32)
    yield from inception("inception3b", "inception3a", 128, 128, 192, 32, 96, 64)
    yield pool("maxpool3", "inception3b", "MAX", 3, 2)
    yield from inception("inception4a", "maxpool3", 192, 96, 208, 16, 48, 64)
    yield from inception("inception4b", "inception4a", 160, 112, 224, 24, 64, 64)
    yield from inception("inception4c", "inception4b", 128, 128, 256, 24, 64, 64)
    yield from inception("inception4d", "inception4c", 112, 144, 288, 32, 64, 64)
    yield from inception("inception4e", "inception4d", 256, 160, 320, 32, 128, 128)
    yield pool("maxpool4", "inception4e", "MAX", 3, 2)
    yield from inception("inception5a", "maxpool4", 256, 160, 320, 32, 128, 128)
    yield from inception("inception5b", "inception5a", 384, 192, 384, 48, 128, 128)
    yield "Pooling", "avgpool", ["inception5b"], {"pool": "AVE", "global_pooling": "true"}
    yield linear("fc", "avgpool", CLASSES)


def caffe_activations(name, images):
    mean = torch.tensor(CAFFE[name], dtype=torch.float64).reshape(1, 3, 1, 1)
    found = run_caffe(caffe_googlenet(), images.flip(1) - mean, CASES[name])
    return {key: value for key, value in found.items() if not INNER.search(key)}


def run_caffe(description, x, case):
    """{layer: activation} by torch, after OpenCV has agreed."""
    description = list(description)
    found, state = {"data": x}, {}
    for kind, name, bottoms, options in description:
        inputs = [found[bottom] for bottom in bottoms]
        if kind in ("Convolution", "InnerProduct"):
            size = options.get("kernel_size")
            channels = inputs[0].shape[1] if size else inputs[0][0].numel()
            shape = (options["num_output"], channels, *([size, size] if size else []))
            shapes = {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
            state |= {key: torch.from_numpy(value) for key, value in weights(shapes, case).items()}
        found[name] = torch_layer(kind, inputs, options, *(state.get(f"{name}.{key}") for key in ("weight", "bias")))
    del found["data"]

    names = [name for _, name, _, _ in description]
    for name, theirs in zip(names, opencv(description, x, state), strict=True):
        ours = found[name].detach().numpy()
        difference = np.abs(theirs - ours).max() / np.abs(ours).max()
        assert theirs.shape == ours.shape and difference < 1e-5, (name, theirs.shape, ours.shape, difference)
    return found


def torch_layer(kind, inputs, options, weight=None, bias=None):
    (x, *_) = inputs
    if kind == "Convolution":
        return F.conv2d(x, weight.double(), bias.double(), options["stride"], options["pad"])
    if kind == "InnerProduct":
        return F.linear(x.flatten(1), weight.double(), bias.double())
    if kind == "ReLU":
        return x.relu()
    if kind == "LRN":
        return F.local_response_norm(x, options["local_size"], options["alpha"], options["beta"], k=1)
    if kind == "Concat":
        return torch.cat(inputs, 1)
    if kind == "Split":
        return x
    if "global_pooling" in options:
        return x.mean((2, 3), keepdim=True)
    function = {"MAX": F.max_pool2d, "AVE": F.avg_pool2d}[options["pool"]]
    return function(x, options["kernel_size"], options["stride"], options["pad"], ceil_mode=True)


def opencv(description, x, state):
    """Every layer's activation, by cv2.dnn from a prototxt and a caffemodel."""
    text = [f'input: "data" input_shape {{ {" ".join(f"dim: {size}" for size in x.shape)} }}']
    messages = []
    blocks = {"Convolution": "convolution", "InnerProduct": "inner_product", "Pooling": "pooling", "LRN": "lrn"}
    for kind, name, bottoms, options in description:
        ends = " ".join(f'bottom: "{bottom}"' for bottom in bottoms) + f' top: "{name}"'
        inside = " ".join(f"{key}: {value}" for key, value in options.items())
        block = f"{blocks[kind]}_param {{ {inside} }}" if options else ""
        text.append(f'layer {{ name: "{name}" type: "{kind}" {ends} {block} }}')
        blobs = [state[f"{name}.{key}"].numpy() for key in ("weight", "bias") if f"{name}.{key}" in state]
        if blobs:
            # LayerParameter: name 1, type 2, blobs 7; BlobProto: data 5, shape 7; BlobShape: dim 1 (caffe.proto)
            shapes = [b"".join(varint(size) for size in blob.shape) for blob in blobs]
            fields = [field(7, field(1, s)) + field(5, b.tobytes()) for s, b in zip(shapes, blobs, strict=True)]
            layer = field(1, name.encode()) + field(2, kind.encode()) + b"".join(field(7, f) for f in fields)
            messages.append(field(100, layer))
    net = cv2.dnn.readNetFromCaffe(
        np.frombuffer("\n".join(text).encode(), np.uint8), np.frombuffer(b"".join(messages), np.uint8)
    )
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.enableFusion(False)  # or activations that we ask for would not exist
    net.enableWinograd(False)
    net.setInput(x.detach().numpy().astype(np.float32))
    return net.forward([name for _, name, _, _ in description])


def field(number, content):
    """A length-delimited field of a protocol buffer."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value):
    low, rest = value & 127, value >> 7
    return struct.pack("B", low | 128) + varint(rest) if rest else struct.pack("B", low)


if __name__ == "__main__":
    main()
