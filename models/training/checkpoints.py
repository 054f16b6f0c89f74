"""A training run on disk: weights, running statistics, the optimizers' momenta and where the run is, in one .npz.

The entry `__state__` is UTF-8 JSON; the others are float32 arrays, `net PATH` and `optimizer NUMBER PATH NAME`.
"""

import contextlib
import json
import os

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from dataset.cli import UserError
from dataset.files import atomic_write
from dataset.npz import npy_entries

from ..launch import join_group

STATE = "__state__"


def arrays_of(net, optimizers):
    """Return {entry: array} of all that a run changes."""
    arrays = {f"net {path}": array for path, array in tree_flatten(net.parameters())}
    for number, optimizer in enumerate(optimizers):
        for path, value in optimizer.state.items():
            inner = value.items() if isinstance(value, dict) else [("", value)]
            arrays |= {f"optimizer {number} {path} {name}": array for name, array in inner}
    return arrays


def write(path, net, optimizers, state):
    """Write a checkpoint, whole or not at all. state: what JSON can hold. UserError where a weight is not finite."""
    arrays = {key: np.array(array) for key, array in arrays_of(net, optimizers).items()}
    spoilt = [key for key, array in arrays.items() if not np.isfinite(array).all()]
    if spoilt:
        raise UserError(f"{spoilt[0]} is no longer finite: lower --lr or --head-lr; {path} is left as it was")
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    with atomic_write(path) as temporary:
        np.savez(temporary, **{STATE: text}, **arrays)


def read_state(path):
    """Return {"settings", "state", "classes"} of a checkpoint, as write() takes them. UserError where it is not so."""
    text = entries(path, [STATE])[STATE].tobytes()
    with contextlib.suppress(ValueError, RecursionError):
        stored = json.loads(text.decode())
        if isinstance(stored, dict) and all(isinstance(stored.get(name), dict) for name in ("settings", "state")):
            classes = stored.get("classes") or []
            if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
                return stored
    raise damaged(path)


def damaged(path):
    return UserError(f"{path}: not a checkpoint of this run, or damaged")


def read_settings(path):
    """Return the settings in the checkpoint that the first process has, in all processes. UserError without one."""
    group = join_group()
    text = json.dumps(read_state(path)["settings"]).encode() if group.rank() == 0 else b""
    size = mx.distributed.all_sum(mx.array([len(text)]), group=group).item()
    everyone = mx.array(np.frombuffer(text.ljust(size, b"\0"), np.uint8).astype(np.int32))
    return json.loads(bytes(mx.distributed.all_sum(everyone, group=group).tolist()))


def restore(path, net, optimizers):
    """Load a checkpoint into a network and optimizers made by the same options. UserError where they differ."""
    own = arrays_of(net, optimizers)
    stored = entries(path, own)
    for key, array in own.items():
        if stored[key].shape != array.shape:
            raise UserError(f"{path}: {key} has another shape: it belongs to a run with other options")
    net.update(tree_unflatten([(p, mx.array(stored[f"net {p}"])) for p, _ in tree_flatten(net.parameters())]))
    for number, optimizer in enumerate(optimizers):
        for name, value in optimizer.state.items():
            if isinstance(value, dict):
                for inner in value:
                    value[inner] = mx.array(stored[f"optimizer {number} {name} {inner}"])
            else:
                optimizer.state[name] = mx.array(stored[f"optimizer {number} {name} "])


def broadcast(net, optimizers, group):
    """Copy the weights and the optimizers' states of rank 0 to all processes."""
    if group.size() == 1:
        return

    def from_first(tree):
        mine = tree if group.rank() == 0 else tree_map(mx.zeros_like, tree)
        return tree_map(lambda array: mx.distributed.all_sum(array, group=group), mine)

    net.update(from_first(net.parameters()))
    for optimizer in optimizers:
        optimizer.state = from_first(optimizer.state)
    mx.eval(net.parameters(), [optimizer.state for optimizer in optimizers])


def entries(path, names):
    if not os.path.exists(path):
        raise UserError(f"{path}: no such file: there is no run to resume")
    try:
        found = dict(npy_entries(path, set(names).__contains__))
        return {name: found[name] for name in names}
    except (UserError, KeyError):
        raise damaged(path) from None
