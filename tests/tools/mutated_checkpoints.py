"""prove.py mutations checkpoints: whatever a damaged file of weights holds, reading it gives arrays or one line, soon
and in little memory. test_formats.py does a short run.
"""

import argparse
import collections
import contextlib
import io
import pickle
import sys
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from models import weights_file  # noqa: E402
from models.conversion import formats, state_dict  # noqa: E402

import foreign  # noqa: E402
import numpy as np  # noqa: E402

from dataset.cli import UserError  # noqa: E402
from dataset.npz import npy_entries  # noqa: E402

HERE = ROOT / "tests/references/checkpoints"
MEMORY = 4 << 20  # bytes beyond 64 times the file's size


def small_arrays():
    rng = np.random.default_rng(0)
    return {f"layer{i}.weight": rng.standard_normal((2, 3, 3, i + 1)).astype(np.float16) for i in range(3)}


def torch7():
    base = np.arange(20, dtype=np.float32)
    conv = foreign.Module(
        "nn.SpatialConvolution", weight=base[:12].reshape(2, 6), bias=base[12:14], f=foreign.Function()
    )
    net = foreign.Module(
        "nn.Sequential", modules=[conv, foreign.Module("nn.Linear", weight=np.ones((3, 2)), inplace=True)]
    )
    return foreign.t7({"epoch": 3, "model": net, "copy": net, "name": "tiny"})


def npz(published):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npz"
        if published:
            np.savez_compressed(path, **small_arrays(), counter_int8=np.int8([1, 2]), counter_scale=np.float32([1, 2]))
        else:
            weights_file.write(path, small_arrays(), weights_file.Metadata("googlenet"))
        return path.read_bytes()


SEEDS = {
    "zip.pth": lambda: (HERE / "zip.pth").read_bytes(),
    "legacy.pth": lambda: (HERE / "legacy.pth").read_bytes(),
    "training.pth.tar": lambda: (HERE / "training.pth.tar").read_bytes(),
    "new.caffemodel": lambda: foreign.caffemodel(foreign.caffe_layers()),
    "v1.caffemodel": lambda: foreign.caffemodel(foreign.caffe_layers(), v1=True, packed=False, shape="old"),
    "tiny.safetensors": lambda: (HERE / "tiny.safetensors").read_bytes(),
    "net.t7": torch7,
    "ours.npz": lambda: npz(published=False),
    "published.npz": lambda: npz(published=True),
}


def flax():
    layers = {f"Conv_{i}": {"kernel": a, "bias": np.ones(3, ">f4")} for i, a in enumerate(small_arrays().values())}
    return pickle.dumps({"params": layers, "step": 3, "names": {"a", "b"}, "path": argparse.Namespace(x=1)}, 4)


def torch_of_all_kinds():
    """A pickle of torch.save's with all that may lie beside weights."""
    beside = {"args": argparse.Namespace(lr=0.1), "counter": collections.Counter("abc"), "set": {1, 2}, "float": 2**70}
    state = {f"model.{key}": array for key, array in small_arrays().items()}
    return foreign.pickled({"state": {"model": state, "ema": [state]}, **beside}, 2)[0]


SEEDS["flax.pkl"] = flax
SEEDS["beside.pth"] = torch_of_all_kinds


def zipped(name):
    """What makes a sound archive of mutated bytes, so that no checksum keeps them from the reader."""

    def wrap(data):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as file:
            file.writestr(name, data)
            for key in range(12 if name.endswith(".pkl") else 0):
                file.writestr(f"x/data/{key}", bytes(256))
        return out.getvalue()

    return wrap


def array():
    out = io.BytesIO()
    np.save(out, np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    return out.getvalue()


def member(path, name):
    with zipfile.ZipFile(path) as file:
        return file.read(name)


SEEDS["pickle.pth"] = lambda: member(HERE / "zip.pth", "zip/data.pkl")
SEEDS["array.npz"] = array
WRAPPERS = {"pickle.pth": zipped("x/data.pkl"), "beside.pth": zipped("x/data.pkl"), "array.npz": zipped("a.npy")}

EXTREMES = [b"\x00", b"\xff", b"\x80", b"\x7f", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", bytes(8)]
EXTREMES += [
    b"\xff" * 8,
    b"\xff" * 7 + b"\x7f",
    b"99999999999",
    b"-1",
    b"(",
    b"[",
    b"{",
    b"r\xff\xff\xff\xff",
    b".",
    b"Q",
]


def mutate(data, rng, name):
    """Flip bits, remove, repeat or overwrite a piece, make numbers extreme or cut off the end, whatever the file."""
    data = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        # half of all changes go to the front and the end, where headers and tables of contents are
        at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(300) - rng.choice((0, 300))
        at %= len(data)
        size, extreme = rng.randrange(1, 40), rng.choice(EXTREMES)
        match rng.randrange(7):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.randrange(256)
            case 2:
                data[at : at + len(extreme)] = extreme
            case 3:
                data[at:at] = extreme
            case 4:
                del data[at : at + size]
            case 5:
                data[at:at] = data[at : at + size]
            case 6:
                del data[at:]
        if not data:
            return b""
    return bytes(data)


def samples():
    """Return {name: bytes} of a small file of every format."""
    return {name: make() for name, make in SEEDS.items()}


def attempt(path):
    """Read a file called [NUMBER-]NAME, NAME being one of samples(); returns "arrays" or "one line".

    Whatever else happens, or memory of more than some times the file's size, is an AssertionError.
    """
    name = path.name.rpartition("-")[2]
    if name in WRAPPERS:
        path.write_bytes(WRAPPERS[name](path.read_bytes()))
    tracemalloc.start()
    try:
        outcome = read(path, name)
        used, size = tracemalloc.get_traced_memory()[1], path.stat().st_size
        assert used < MEMORY + 64 * size, f"{used} bytes for a file of {size}"
    finally:
        tracemalloc.stop()
    return outcome


def read(path, name):
    try:
        if path.suffix == ".npz":
            arrays = dict(npy_entries(path))
            arrays = weights_file.decode({key: array for key, array in arrays.items() if key != weights_file.METADATA})
            if name == "ours.npz":
                weights_file.read(path)
        else:
            arrays = formats.read(path).arrays
            with contextlib.suppress(UserError):  # of no network here
                state_dict.load(path)
    except UserError as error:
        assert "\n" not in str(error) and str(error).startswith(str(path)), error
        return "one line"
    for array in arrays.values():
        assert isinstance(array, np.ndarray) and array.dtype.kind in "fiub"
        array.tobytes()  # every number is really there
    return "arrays"
