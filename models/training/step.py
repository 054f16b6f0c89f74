"""The arithmetic of learning: the loss, a step, and the learning rate.

`split` is the layer that the frozen part of a network ends with (split_layer), None where nothing is frozen: before it
nothing is differentiated. A batch is images N x H x W x 3, RGB 0..255, or float16: the activation of the layer `split`.
"""

import math

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from ..kernels.arrays import after, on_cpu
from ..kernels.bands import cut, join
from ..kernels.compilation import compiled_with
from ..network import layers_after
from ..registry import entry

AUX_WEIGHT = 0.3  # of each auxiliary classifier's loss: Szegedy et al., Going Deeper with Convolutions, 2014, section 5
PIECE = 4  # images at a time in the frozen part on a CPU: their activations stay in its cache


def frozen_features(net, images, split):
    """Return the activation of the layer `split` for images; without a split, the images normalised."""
    if not split:
        return net.normalise(mx.array(images))
    images = mx.array(images)
    piece = PIECE if on_cpu() else len(images)
    features = []
    for start in range(0, len(images), piece):
        (few,) = after(features, images[start : start + piece])
        features.append(net.activations(few, [split])[split])
    return mx.concatenate(features)


def inputs(net, batch, split):
    """Return the input of the part that learns: of a batch of images, or of features."""
    return mx.array(batch).astype(mx.float32) if batch.dtype == np.float16 else frozen_features(net, batch, split)


def make_optimizers(net, kind, rate, head_rate, head, momentum=0.9, weight_decay=0.0):
    """Return [(optimizer, learning rate, parameter paths)]: one for the others that learn, one for those in `head`."""
    make = {
        "sgd": lambda rate: optim.SGD(rate, momentum=momentum),
        "adam": lambda rate: optim.Adam(rate, bias_correction=True),
        "adamw": lambda rate: optim.AdamW(rate, weight_decay=weight_decay, bias_correction=True),
    }[kind]
    parameters = dict(tree_flatten(net.trainable_parameters()))
    optimizers = []
    for speed, paths in (
        (rate, [path for path in parameters if path not in head]),
        (head_rate, [path for path in parameters if path in head]),
    ):
        optimizer = make(speed)
        optimizer.init({path: parameters[path] for path in paths})
        optimizers.append((optimizer, speed, paths))
    return optimizers


def rate_factor(step, total, warmup=0.0, schedule="constant"):
    """Return the factor of the learning rates at a step of `total`: it rises for `warmup` steps, then as scheduled."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(total - warmup, 1)
    if schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    return 0.1 ** int(3 * done) if schedule == "step" else 1.0


def class_weights(counts, balance):
    """Return the weight of each class in the loss: 1; with `balance`, in inverse proportion to its count, mean 1."""
    counts = np.maximum(counts, 1)
    return mx.array(counts.sum() / (len(counts) * counts) if balance else np.ones(len(counts)), mx.float32)


def loss_function(net, split, smoothing, class_weight, retain=0.0):
    """Return a function ({path: parameter}, features, labels, base features) -> (loss, (the classifier's own, its
    logits)).

    The loss is the cross-entropy of the classifier and, with AUX_WEIGHT each, of the auxiliary ones; and, times
    `retain`, for each of the base's features {layer: f0} the mean over the batch of |f - f0|^2 / |f0|^2 (Li and Hoiem,
    Learning without Forgetting, 2016, of features instead of logits).
    """

    def cross_entropy(logits, labels):
        losses = nn.losses.cross_entropy(logits, labels, label_smoothing=smoothing)
        return (losses * class_weight[labels]).mean()

    def loss(parameters, x, labels, base):
        net.update(tree_unflatten(list(parameters.items())))
        others = 0
        for name, activation in net.stages(cut(x), after=split):
            if name in net.auxiliary:
                others = others + AUX_WEIGHT * cross_entropy(join(activation), labels)
            if name in base:
                others = others + retain * relative_change(join(activation), base[name])
        main = cross_entropy(join(activation), labels)
        return main + others, (main, join(activation))

    return loss


def relative_change(features, before):
    """Return the mean over images of |features - before|^2 / |before|^2, both N x ... x C."""
    axes = tuple(range(1, before.ndim))
    change = features - before
    return ((change * change).sum(axis=axes) / mx.maximum((before * before).sum(axis=axes), 1e-6)).mean()


def retained_features(base, x, split):
    """Return {layer: activation} of the base's concept layers behind `split`, for the input of what learns."""
    wanted = [base.resolve(name) for name in entry(base.metadata.model).concept_layers]
    wanted = [name for name in wanted if name in layers_after(base.layers, split)]
    found = {}
    for name, activation in base.stages(cut(x), after=split) if wanted else ():
        if name in wanted:
            found[name] = join(activation)
            if len(found) == len(wanted):
                break
    return found


def training_step(
    net, split, optimizers, group, class_weight, smoothing=0.0, clip=math.inf, decay=0.0, base=None, retain=0.0
):
    """Return a function (features, labels) -> (the classifier's loss, correct), which moves the weights by one step.

    base: the network that was started from, of whose features so much is to be kept as `retain` says.

    Gradients are averaged over the processes of `group` and clipped to an L2 norm of `clip`; then `decay` times the
    weights is added.
    """
    loss = loss_function(net, split, smoothing, class_weight, retain)
    changing = {path for path, _ in tree_flatten(net.trainable_parameters())}  # and the running statistics beside them
    changing |= {f"{path.rpartition('.')[0]}.running_{name}" for path in changing for name in ("mean", "var")}

    def net_state():
        return {path: array for path, array in tree_flatten(net.parameters()) if path in changing}

    def step(x, labels):
        net.update(tree_unflatten(list(state[0].items())))
        parameters = dict(tree_flatten(net.trainable_parameters()))
        before = retained_features(base, x, split) if retain else {}
        (_, (main, logits)), gradients = mx.value_and_grad(loss)(parameters, x, labels, before)
        gradients = dict(tree_flatten(nn.average_gradients(gradients, group)))
        gradients, _ = optim.clip_grad_norm(gradients, clip)
        if decay:
            gradients = {path: gradient + decay * parameters[path] for path, gradient in gradients.items()}
        for optimizer, _, paths in optimizers:
            own = {path: parameters[path] for path in paths}
            parameters |= optimizer.apply_gradients({path: gradients[path] for path in paths}, own)
        net.update(tree_unflatten(list(parameters.items())))
        state[0] = net_state()
        return main, (logits.argmax(axis=-1) == labels).sum()

    state = [net_state(), [optimizer.state for optimizer, _, _ in optimizers], mx.random.state]
    function = compiled_with(step, state)

    def evaluated(x, labels):
        results = function(x, labels)
        mx.eval(results, state)
        net.update(tree_unflatten(list(state[0].items())))
        return results

    return evaluated
