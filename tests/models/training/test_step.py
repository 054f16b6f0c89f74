"""A step of learning, against PyTorch's by the references of tests/tools/make_train_references.py; learning rates."""

from models.kernels import bands
from models.training import freezing, step
from models.training.distributed import share_batches
from models.training.transfer import new_network

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from seeded import CLASSES, REFERENCES, TRAINING, Case, digest, picture, weights


def test_learning_rates():
    cosine = [step.rate_factor(i, 10, 2, "cosine") for i in range(10)]
    assert cosine[:3] == pytest.approx([1 / 3, 2 / 3, 1]) and cosine[6] == pytest.approx(0.5) and 0 < cosine[9] < 0.05
    assert [step.rate_factor(i, 9, 0, "step") for i in (0, 3, 8)] == pytest.approx([1, 0.1, 0.01])
    assert step.rate_factor(7, 9) == 1
    assert np.array(step.class_weights(np.array([1, 3]), True)).tolist() == pytest.approx([2, 2 / 3])


def test_gradients_and_steps_are_those_of_pytorch():
    """By the references of make_train_references.py: auxiliary classifiers, clipping, two rates, frozen batch norms."""
    rows = {row["name"].decode(): row for row in np.load(REFERENCES / "training.npy")}
    net = new_network("googlenet", CLASSES, aux=True)
    start = seeded_weights(net)
    net.update(tree_unflatten([(path, mx.array(array)) for path, array in start.items()]))
    learned = freezing.learned_paths(net, "inception4e")
    frozen = freezing.freeze(net, learned)
    share_batches(net, mx.distributed.init())
    for _, module in net.named_modules():
        if isinstance(module, nn.Dropout):
            module._p_1 = 1.0
    freezing.training_mode(net, frozen)
    split = freezing.split_layer(net, learned)
    assert split == "inception4a"  # where the first auxiliary classifier begins
    optimizers = step.make_optimizers(
        net,
        "sgd",
        TRAINING.rate,
        TRAINING.head_rate,
        [path for path in learned if path.startswith(("fc.", "aux"))],
        TRAINING.momentum,
    )
    ones, labels = mx.ones(CLASSES), mx.array(TRAINING.labels)
    x = step.frozen_features(net, picture(TRAINING.batch, TRAINING.size, TRAINING.size), split)

    parameters = dict(tree_flatten(net.trainable_parameters()))
    statistics = {path: array for path, array in tree_flatten(net.parameters()) if "running" in path}
    loss = step.loss_function(net, split, TRAINING.smoothing, ones)
    (value, _), gradients = mx.value_and_grad(loss)(parameters, x, labels, {})
    found = {"loss": value[None]} | {f"gradient {path}": gradient for path, gradient in gradients.items()}
    net.update(tree_unflatten([*parameters.items(), *statistics.items()]))  # as before
    train = step.training_step(
        net, split, optimizers, mx.distributed.init(), ones, TRAINING.smoothing, TRAINING.clip, TRAINING.weight_decay
    )
    for _ in range(2):
        train(x, labels)
    after = {path: np.array(array) for path, array in tree_flatten(net.parameters())}
    found |= {f"change {path}": after[path] - start[path] for path in after if path.split(".")[0] in TRAINING.moved}

    assert set(found) == set(rows)
    errors = {}
    for name, row in rows.items():
        largest, values = digest(found[name])
        errors[name] = max(abs(largest - row["largest"]), np.abs(values - row["values"]).max()) / row["largest"]
    assert {name: error for name, error in errors.items() if not error < 1e-3} == {}
    unlearned = [path for path in after if path.split(".")[0] in ("conv1", "inception3b", "inception4e")]
    assert all(np.array_equal(after[path], start[path]) for path in unlearned)


@pytest.mark.parametrize("number", [2, 3])
def test_parts_of_a_batch_learn_what_the_whole_does(number):
    """Batch norm, too, whose statistics are those of all bands."""
    net = new_network("googlenet", CLASSES, aux=True)
    start = seeded_weights(net)
    frozen = freezing.freeze(net, freezing.learned_paths(net, "inception4c"))
    share_batches(net, mx.distributed.init())
    freezing.training_mode(net, frozen)
    for _, module in net.named_modules():
        if isinstance(module, nn.Dropout):
            module._p_1 = 1.0
    loss = step.loss_function(net, None, 0.0, mx.ones(CLASSES))
    x, labels = net.normalise(mx.array(picture(3, 65, 79))), mx.array([0, 1, 0])

    def learn(count):
        bands.use(count)
        net.update(tree_unflatten([(path, mx.array(array)) for path, array in start.items()]))
        (value, _), gradients = mx.value_and_grad(loss)(dict(tree_flatten(net.trainable_parameters())), x, labels, {})
        statistics = {path: array for path, array in tree_flatten(net.parameters()) if "running" in path}
        return {"loss": value, **dict(tree_flatten(gradients)), **statistics}

    try:
        one, parts = learn(1), learn(number)
    finally:
        bands.use(bands.blas.bands())
    errors = {path: float(mx.abs(parts[path] - one[path]).max() / mx.abs(one[path]).max()) for path in one}
    assert {path: error for path, error in errors.items() if not error < 2e-3} == {}
    assert any("inception5b.branch1.bn.weight" in path for path in one)


def seeded_weights(net):
    """{path: array}: those that torch has in make_train_references.py, in MLX's layout."""
    shapes = {path: array.shape for path, array in tree_flatten(net.parameters())}
    torchs = {path: (s[0], s[3], s[1], s[2]) if len(s) == 4 else s for path, s in shapes.items()}
    drawn = weights(torchs, Case(None, ()))
    return {path: array.transpose(0, 2, 3, 1) if array.ndim == 4 else array for path, array in drawn.items()}


def test_learning_without_forgetting():
    """What the loss adds is the relative change of the features, an image at a time, of the layers that learn."""
    base, net = (new_network("googlenet", 3, seed=seed) for seed in (0, 1))
    images, labels = mx.array(picture(2, 32, 32)), mx.array([0, 2])
    x = step.frozen_features(base, images, "inception4d")
    before = step.retained_features(base, x, "inception4d")
    assert list(before) == ["inception4e", "inception5a", "inception5b"]
    assert list(step.retained_features(base, mx.zeros((2, 1024)), "avgpool")) == []
    losses = []
    for retain in (0.0, 0.5):
        loss = step.loss_function(net, "inception4d", 0.0, mx.ones(3), retain)
        losses.append(loss(dict(tree_flatten(net.trainable_parameters())), x, labels, before)[0].item())
    now = dict(net.stages(x, after="inception4d"))
    added = 0
    for name, f0 in before.items():
        f, f0 = (np.array(a).reshape(2, -1).astype(np.float64) for a in (now[name], f0))
        added += (((f - f0) ** 2).sum(axis=1) / (f0**2).sum(axis=1)).mean()
    assert losses[1] - losses[0] == pytest.approx(0.5 * added, rel=1e-4)


def test_batch_norm_on_running_statistics():
    """It is that of the base, in training as in evaluation."""
    net = new_network("resnet50", 3)
    freezing.training_mode(net, [], "running")
    assert net.training and not net.bn1.training and not net.layer3[0].bn2.training and net.conv1.training
