"""Make tests/references/checkpoints/ anew: files of PyTorch and safetensors; what OpenCV computes of a Caffe model.

    pip install torch safetensors "opencv-python-headless<5"
    PYTHONPATH=tests python tests/tools/make_checkpoints.py

expected.npz holds the arrays of the state dict in the words of torch; kilobytes in all.
"""

from collections import OrderedDict
from pathlib import Path

import cv2
import foreign
import numpy as np
import safetensors.torch
import torch

HERE = Path(__file__).resolve().parents[1] / "references/checkpoints"


def state():
    """Tensors of every kind that a checkpoint may hold: dtypes, views of one storage, a scalar."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 7
    return OrderedDict(
        {
            "conv.weight": torch.linspace(-2, 2, 54).reshape(2, 3, 3, 3),
            "conv.bias": torch.tensor([0.5, -1e-3]),
            "conv.num_batches_tracked": torch.tensor(1234),
            "transposed": base.t(),
            "slice": base[1:, 2:5],
            "half": torch.linspace(-1, 1, 5, dtype=torch.float16),
            "brain": torch.linspace(-3, 3, 7, dtype=torch.bfloat16),
            "double": torch.tensor([[1 / 3, 2 / 3]], dtype=torch.float64),
            "flags": torch.tensor([True, False]),
            "bytes": torch.tensor([1, 255], dtype=torch.uint8),
            "none": torch.empty(0, 3),
        }
    )


def main():
    HERE.mkdir(exist_ok=True)
    tensors = state()
    torch.save(tensors, HERE / "zip.pth")
    torch.save(tensors, HERE / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(dict(tensors), HERE / "protocol4.pth", pickle_protocol=4)
    net = torch.nn.Linear(2, 3)
    torch.save({"weight": net.weight, "bias": net.bias}, HERE / "parameters.pth", _use_new_zipfile_serialization=False)
    training = {
        "epoch": 3,
        "arch": "googlenet",
        "best": np.float64(0.25),
        "classes": ["a", "b"],
        "state_dict": {f"module.{key}": tensor for key, tensor in tensors.items()},
        "optimizer": torch.optim.SGD(net.parameters(), 0.1, momentum=0.9).state_dict(),
    }
    torch.save(training, HERE / "training.pth.tar")
    torch.save(net, HERE / "module.pth")
    torch.jit.script(net).save(HERE / "script.pt")
    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    safetensors.torch.save_file(contiguous, HERE / "tiny.safetensors", metadata={"format": "pt"})

    expected = {key: tensor.float().numpy() if key == "brain" else tensor.numpy() for key, tensor in tensors.items()}
    expected |= {f"parameters.{key}": tensor.detach().numpy() for key, tensor in net.named_parameters()}
    outputs = [opencv(v1, packed) for v1 in (False, True) for packed in (False, True)]
    assert all(np.array_equal(outputs[0], output) for output in outputs)
    np.savez(HERE / "expected.npz", opencv=outputs[0], **expected)


def opencv(v1, packed):
    """The logits of foreign.CAFFE on foreign.caffe_input(), as OpenCV reads and computes them."""
    model = foreign.caffemodel(foreign.caffe_layers(), v1, packed=packed, shape="old" if v1 else "new")
    net = cv2.dnn.readNetFromCaffe(np.frombuffer(foreign.PROTOTXT.encode(), np.uint8), np.frombuffer(model, np.uint8))
    net.setInput(foreign.caffe_input())
    return net.forward()


if __name__ == "__main__":
    main()
