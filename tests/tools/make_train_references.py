"""Make tests/references/training.npy anew: what PyTorch computes in two steps of fine-tuning GoogLeNet.

    pip install torch torchvision && PYTHONPATH=tests python tests/tools/make_train_references.py

In float64, on seeded weights and pictures: frozen to inception4e, which keeps its running statistics and uses them;
both auxiliary classifiers, label smoothing, clipping, two learning rates, momentum and weight decay. Dropout is off,
for every program draws its own. With more layers learning, float32 itself is a hundredth off float64: ReLUs switch.
"""

import numpy as np
import torch
import torch.nn.functional as F
from seeded import CLASSES, REFERENCES, TRAINING, TRAINING_TABLE, Case, digest, picture, weights
from torchvision.models import GoogLeNet

FROZEN = ("conv", "inception3", "inception4")


def main():
    net = GoogLeNet(CLASSES, aux_logits=True, transform_input=False, init_weights=False).double()
    state = {key: value for key, value in net.state_dict().items() if value.ndim}
    arrays = weights({key: tuple(value.shape) for key, value in state.items()}, Case(None, ()))
    net.load_state_dict({key: torch.tensor(array) for key, array in arrays.items()}, strict=False)
    net.train()
    for name, module in net.named_modules():
        if name.startswith(FROZEN):
            module.eval()
            module.requires_grad_(False)
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0

    learned = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    new = [(name, p) for name, p in learned if name.startswith(("fc.", "aux"))]
    groups = [
        {"params": [p for name, p in learned if not name.startswith(("fc.", "aux"))], "lr": TRAINING.rate},
        {"params": [p for _, p in new], "lr": TRAINING.head_rate},
    ]
    optimizer = torch.optim.SGD(groups, momentum=TRAINING.momentum, weight_decay=TRAINING.weight_decay)
    images = picture(TRAINING.batch, TRAINING.size, TRAINING.size)
    x = (torch.tensor(images).double().permute(0, 3, 1, 2) - 127.5) / 127.5
    labels = torch.tensor(TRAINING.labels)
    rows = []
    for step in range(2):
        optimizer.zero_grad()
        outputs = net(x)
        losses = [F.cross_entropy(y, labels, label_smoothing=TRAINING.smoothing) for y in outputs]
        loss = losses[0] + 0.3 * (losses[1] + losses[2])
        loss.backward()
        if step == 0:
            rows += [row("loss", loss.detach()[None])]
            rows += [row(f"gradient {name}", p.grad) for name, p in learned]
        torch.nn.utils.clip_grad_norm_([p for _, p in learned], TRAINING.clip)
        optimizer.step()
    after = net.state_dict()
    moved = [key for key in state if key.split(".")[0] in TRAINING.moved]
    rows += [row(f"change {key}", after[key] - torch.tensor(arrays[key]).double()) for key in moved]
    np.save(REFERENCES / "training.npy", np.array(rows, TRAINING_TABLE))
    print(f"training: {len(rows)} references")


def row(name, tensor):
    array = tensor.detach().numpy()
    largest, values = digest(array.transpose(0, 2, 3, 1) if array.ndim == 4 else array)
    return name, largest, values


if __name__ == "__main__":
    main()
