"""Make tests/references/dreams.npz anew: dreams by the notebook of 2015, with torchvision in the place of Caffe.

    pip install torch torchvision && PYTHONPATH=tests python tests/tools/make_dream_references.py

The algorithm is written here a second time on purpose, after google/deepdream's dream.ipynb, in its own terms
(channels first, the gradient put in at the layer by hand), with the jitter at 0, since the two programs draw
different random numbers. The network is the bundled starter. STEPS is small because dreaming is chaotic: sooner or
later rounding decides which of two nearly equal cells a pooling passes on, and from there the dreams part. After the
usual 40 steps torchvision in float32 and in float64 themselves agree to 29 dB only (the script prints both figures).
"""

import numpy as np
import scipy.ndimage as nd
import torch
from PIL import Image
from seeded import REFERENCES
from torchvision import models as torchvision

ROOT = REFERENCES.parent.parent
STEPS = 2  # an octave
MEAN, STD = (
    torch.tensor(v, dtype=torch.float64).reshape(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
)


def starter():
    file = np.load(ROOT / "models/weights/googlenet_starter_mlx.npz")
    state = {key: torch.from_numpy(file[key].astype(np.float32)) for key in file.files if key != "__metadata__"}
    state = {key: value.permute(0, 3, 1, 2) if value.ndim == 4 else value for key, value in state.items()}
    net = torchvision.GoogLeNet(1000, aux_logits=False, transform_input=False, init_weights=False).double().eval()
    net.load_state_dict(state, strict=False)
    return net


def forward(net, image, end):
    """The activation of `end` for an image 3 x H x W, and the tensor to differentiate by."""
    found = {}
    handle = net.get_submodule(end).register_forward_hook(lambda module, inputs, output: found.update(a=output))
    source = torch.from_numpy(image[None]).requires_grad_()
    net((source / 255 - MEAN.to(source)) / STD.to(source))
    handle.remove()
    return found["a"], source


def make_step(net, image, end, objective, step_size=1.5):
    activation, source = forward(net, image, end)
    activation.backward(objective(activation.detach()))
    g = source.grad[0].numpy()
    return np.clip(image + step_size / np.abs(g).mean() * g, 0, 255)


def objective_l2(activation):
    return activation


def objective_guide(guide_features):
    def objective(activation):
        ch = activation.shape[1]
        x, y = activation.reshape(ch, -1), guide_features.reshape(ch, -1)
        best = (x.T @ y).argmax(1)
        return y[:, best].reshape(activation.shape)

    return objective


def deepdream(net, base, end, objective, iter_n=STEPS, octave_n=4, octave_scale=1.4):
    octaves = [base]
    for _ in range(octave_n - 1):
        octaves.append(nd.zoom(octaves[-1], (1, 1.0 / octave_scale, 1.0 / octave_scale), order=1))
    detail = np.zeros_like(octaves[-1])
    for octave, octave_base in enumerate(octaves[::-1]):
        h, w = octave_base.shape[-2:]
        if octave > 0:
            h1, w1 = detail.shape[-2:]
            detail = nd.zoom(detail, (1, 1.0 * h / h1, 1.0 * w / w1), order=1)
        image = octave_base + detail
        for _ in range(iter_n):
            image = make_step(net, image, end, objective)
        detail = image - octave_base
    return image


def main():
    net = starter()
    sample = Image.open(ROOT / "assets/sample.jpg").convert("RGB")
    picture = np.asarray(sample.resize((121, 89), Image.Resampling.BICUBIC))
    guide = np.asarray(sample.crop((300, 420, 380, 500)))
    base, guide_image = (np.float64(a).transpose(2, 0, 1) for a in (picture, guide))
    dreams = {layer: deepdream(net, base, layer, objective_l2) for layer in ("inception3b", "inception4c")}
    features = forward(net, guide_image, "inception3b")[0].detach()
    dreams["guided"] = deepdream(net, base, "inception3b", objective_guide(features))
    for steps in (STEPS, 10):
        exact, rounded = (
            deepdream(network, base.astype(dtype), "inception3b", objective_l2, steps)
            for network, dtype in ((net, np.float64), (starter().float(), np.float32))
        )
        decibels = 10 * np.log10(255**2 / np.mean((exact - rounded) ** 2))
        print(f"{steps} steps an octave: float32 agrees with float64 to {decibels:.0f} dB")
    arrays = {name: np.uint8(np.rint(dream.transpose(1, 2, 0))) for name, dream in dreams.items()}
    np.savez_compressed(REFERENCES / "dreams.npz", picture=picture, guide=guide, **arrays)


if __name__ == "__main__":
    main()
