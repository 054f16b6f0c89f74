"""Read thousands of mutated files with every reader: each must give arrays or one clear line, soon, in little memory.

    python tests/tools/fuzz_checkpoints.py [--count 10000] [--reader NAME ...] [--seed 0]

Prints a line a reader. The tests do a short run of the same.
"""

import argparse
import io
import signal
import sys
import tempfile
import time
import tracemalloc
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from models import weights_file  # noqa: E402
from models.conversion import formats  # noqa: E402
from models.npz import npy_entries  # noqa: E402

import foreign  # noqa: E402
import numpy as np  # noqa: E402

from dataset.cli import UserError  # noqa: E402

HERE = ROOT / "tests/references/checkpoints"
SECONDS = 5  # of processor time a reader may take for one file
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
WRAPPERS = {"pickle.pth": zipped("x/data.pkl"), "array.npz": zipped("a.npy")}

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


def mutate(data, rng):
    """Some of: bits flipped, a piece removed, repeated, moved or overwritten, numbers made extreme, the end cut off."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        # half of all changes go to the front and the end, where headers and tables of contents are
        at = (
            int(rng.integers(len(data)))
            if rng.random() < 0.5
            else int(rng.integers(min(len(data), 300))) - rng.integers(2) * 300
        )
        at %= len(data)
        size = int(rng.integers(1, 40))
        match rng.integers(7):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at] = int(rng.integers(256))
            case 2:
                extreme = EXTREMES[rng.integers(len(EXTREMES))]
                data[at : at + len(extreme)] = extreme
            case 3:
                data[at:at] = EXTREMES[rng.integers(len(EXTREMES))]
            case 4:
                del data[at : at + size]
            case 5:
                data[at:at] = data[at : at + size]
            case 6:
                del data[at:]
        if not data:
            return b""
    return bytes(data)


def fuzz(name, count, folder, seed=0):
    """{"read": n, "refused": n} of `count` mutations of a seed; an exception says which mutation went wrong."""
    original = SEEDS[name]()
    path = Path(folder) / name
    rng = np.random.default_rng([seed, sum(name.encode())])
    results = {"read": 0, "refused": 0}

    def late(*_):
        raise TimeoutError

    previous = signal.signal(signal.SIGPROF, late)
    tracemalloc.start()
    try:
        for i in range(count):
            data = mutate(original, rng)
            data = WRAPPERS[name](data) if name in WRAPPERS else data
            path.write_bytes(data)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            results[outcome(path, f"{name}, mutation {i}")] += 1
            signal.setitimer(signal.ITIMER_PROF, 0)
            used = tracemalloc.get_traced_memory()[1] - before
            assert used < MEMORY + 64 * len(data), f"{name}, mutation {i}: {used} bytes for a file of {len(data)}"
    finally:
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
    return results


def outcome(path, where):
    """ "read" or "refused"; anything else is an exception."""
    try:
        if path.suffix == ".npz":
            arrays = dict(npy_entries(path))
            arrays = weights_file.decode({key: array for key, array in arrays.items() if key != weights_file.METADATA})
            if path.name == "ours.npz":
                weights_file.read(path)
        else:
            arrays = formats.read(path).arrays
        for array in arrays.values():
            assert isinstance(array, np.ndarray) and array.dtype.kind in "fiub"
            array.tobytes()  # every number is really there
        return "read"
    except UserError as error:
        assert "\n" not in str(error) and str(error).startswith(str(path)), f"{where}: {error}"
        return "refused"
    except Exception as error:
        raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="mutations of each file (default: 10000)")
    parser.add_argument("--reader", nargs="+", choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in args.reader:
        start = time.time()
        with tempfile.TemporaryDirectory() as folder:
            results = fuzz(name, args.count, folder, args.seed)
        print(
            f"{name}: {results['read']} read, {results['refused']} refused in {time.time() - start:.0f} s", flush=True
        )


if __name__ == "__main__":
    main()
