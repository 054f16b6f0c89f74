"""The names that other frameworks give to the layers of the networks here, by the modules that a file has.

torchvision's names are ours, Caffe's are aliases of the architectures; the ports of neural-dream, dream-creator,
captum, jcjohnson and timm vary them.
"""

from ..googlenet import googlenet_aliases
from ..vgg import VGG16, VGG19, vgg_aliases

CAFFE_VGG = {"mean": [123.68, 116.779, 103.939], "std": [1.0, 1.0, 1.0], "channel_order": "BGR"}
TIMM_VGG = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}
JCJOHNSON_VGG = {"classifier.1": "classifier.0", "classifier.4": "classifier.3"}


def foreign_names(modules):
    """Return ({their module: our module}, the Metadata fields that such a file implies); empty for torchvision's."""
    if not modules.isdisjoint({"inception_3a/1x1", "inception_3a_1x1", "mixed3a.conv_1x1"}):
        return googlenet_names(modules), {}
    if "conv1_1" in modules:
        return vgg_aliases((VGG19 if "conv3_4" in modules else VGG16).depths), CAFFE_VGG
    if {"features.28", "classifier.1"} <= modules:  # Caffe's weights, ported to PyTorch
        return JCJOHNSON_VGG, CAFFE_VGG
    if "pre_logits.fc1" in modules:
        return TIMM_VGG, {}
    return {}, {}


def googlenet_names(modules):
    """Return {their module: ours} of Caffe's a/b, neural-dream's a_b, and dream-creator's and captum's mixed3a.b."""
    aliases = googlenet_aliases()
    aliases |= {theirs.replace("/", "_"): ours for theirs, ours in aliases.items()}
    aliases |= {f"conv{i}": f"conv{i}" for i in (1, 2, 3)}
    names = {module: f"{aliases[module]}.conv" for module in modules if module in aliases}
    for module in modules:
        head, mark, part = module.replace("_", "/", 1).partition("/")
        if mark and head == "loss3":  # a classifier that was trained anew often has a longer name than Caffe's
            names[module] = "fc"
        elif mark and head in ("loss1", "loss2"):
            names[module] = f"aux{head[-1]}.{'conv.conv' if part == 'conv' else 'fc1' if part[:2] == 'fc' else 'fc2'}"
    for head in ("aux1", "aux2"):
        names |= {f"{head}.loss_conv": f"{head}.conv.conv", f"{head}.loss_fc": f"{head}.fc1"}
        names |= {f"{head}.loss_classifier": f"{head}.fc2", f"{head}.conv": f"{head}.conv.conv"}  # captum: conv
    return {theirs: ours for theirs, ours in names.items() if theirs in modules}
