"""How fast, and how large: prints a table of medians, and of ratios from alternating pairs.

python tests/tools/benchmark.py                        everything, this program alone
python tests/tools/benchmark.py step memory            the first thing to try on a GPU
python tests/tools/benchmark.py step dream --against torch   against PyTorch (pip install torch torchvision)
python tests/tools/benchmark.py busy                   a step beside a busy process
python tests/tools/benchmark.py step --against plain   against MLX's own operators under MLX's own BLAS
python tests/tools/benchmark.py step --against operators   on a GPU, against pooling without kernels of our own
python tests/tools/benchmark.py train --against torch  fine-tuning GoogLeNet, with and without --cache

Each side is a process of its own that waits while the other computes. Machines differ and are noisy: take the ratios.
"""

import argparse
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

HEIGHT, WIDTH = 400, 600
STEPS = {"googlenet": "inception4c", "vgg16": "features.22", "resnet50": "layer3"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="step|busy|dream|train|memory|kernels|load", help="(default: all)")
    sides = ("torch", "plain", "operators")
    parser.add_argument("--against", choices=sides, help="what step, dream and train are compared with")
    parser.add_argument("--networks", nargs="+", choices=STEPS, default=list(STEPS), help="for step")
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="measurements of each side (default: 5)")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return WORKERS[args.worker[0]](args.worker[1])
    benchmarks = {
        "step": step,
        "busy": busy,
        "dream": dream,
        "train": train,
        "memory": memory,
        "kernels": kernels,
        "load": load,
    }
    if wrong := set(args.what) - set(benchmarks):
        parser.error(f"there is no benchmark {wrong.pop()!r}")
    describe_machine()
    for name in args.what or benchmarks:
        benchmarks[name](args)
    return 0


def describe_machine():

    from models.kernels import blas, pooling_gpu

    import mlx.core as mx

    versions = (f"{name} {version(name)}" for name in ("mlx", "numpy", "torch", "torchvision"))
    library = Path(blas.found).name if blas.found else "MLX's own"
    core = os.environ.get("OPENBLAS_CORETYPE")
    print(f"{platform.machine()}, {processor()}, {os.cpu_count()} cores, {platform.system()}, {mx.default_device()}")
    print(f"BLAS: {library}{f' (OPENBLAS_CORETYPE={core})' if core else ''}; {', '.join(versions)}")
    if mx.default_device() == mx.Device(mx.gpu):
        print(", ".join(f"{key} {value}" for key, value in mx.device_info().items()))
        right = pooling_gpu.are_right(3, 2, True, False, mx.float32)
        print("max pooling: " + ("kernels of our own" if right else "MLX's operators; our kernels are not right here"))


def processor():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


# --- The dream step: forward to the layer, gradient of the image, update ---


def step(args):
    print(f"\nstep, {HEIGHT} x {WIDTH}, milliseconds" + (f", and times {args.against}'s" if args.against else ""))
    for network in args.networks:
        sides = {"ours": Worker("ours", network)}
        if args.against:
            sides[args.against] = Worker(args.against, network)
        times = {name: [] for name in sides}
        for _ in range(args.pairs):
            for name, worker in sides.items():
                times[name].append(worker.measure())
        medians = [f"{name} {1000 * statistics.median(seconds):7.0f}" for name, seconds in times.items()]
        ratio = ""
        if args.against:
            ratios = [a / b for a, b in zip(times["ours"], times[args.against], strict=True)]
            ratio = f"   {statistics.median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f})"
        print(f"  {network:10} {STEPS[network]:12} {'   '.join(medians)}{ratio}", flush=True)
        for worker in sides.values():
            worker.close()


class Worker:
    """A process that takes steps when it is asked to, and tells how long each took."""

    def __init__(self, side, network):
        environment = os.environ | ({"DEEPDREAM_BLAS": "off", "DEEPDREAM_BANDS": "1"} if side == "plain" else {})
        command = [sys.executable, __file__, "--worker", side, network]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.measure()  # the first step prepares what the others share

    def measure(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("benchmark.py: error: a worker ended early; what it said is above")
        return float(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def answer_requests(take_steps, count=10):
    """A worker's life: for each line on stdin, the mean seconds of `count` steps on stdout; an octave has ten."""
    for _ in sys.stdin:
        start = time.perf_counter()
        take_steps(count)
        print((time.perf_counter() - start) / count, flush=True)
    return 0


def picture():
    return np.random.default_rng(0).uniform(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32)


def our_worker(network, without=None):
    import models

    import mlx.core as mx

    import dream

    net = models.weights_file.Metadata(network, 10).build().eval()
    mx.eval(net.parameters())
    if without:
        without()
    gradient = dream.gradient_function(net, dream.parse_targets(net, [STEPS[network]]))
    rng, image = np.random.default_rng(0), picture()
    return answer_requests(lambda count: dream.gradient_ascent(gradient, image, count, 1.5, 32, rng))


def use_plain_operators():
    """Put MLX's own operators in the place of the fast forms."""
    from models import googlenet, layers

    import mlx.core as mx
    import mlx.nn as nn

    def conv2d(x, weight, bias, stride, padding, cached):
        y = mx.conv2d(x, weight, stride, padding)
        return y if bias is None else y + bias

    def max_pool(x, k, s, p, ceil_mode):
        return nn.MaxPool2d(k, s, p)(x)

    layers.conv2d, layers.max_pool = conv2d, max_pool
    layers.conv2d_relu = lambda *arguments: layers.relu(conv2d(*arguments))
    googlenet.heads_cpu = lambda x, heads: [layers.relu(conv2d(x, *head[:2], 1, 0, None)) for head in heads]


def use_no_kernels():
    """Pool by MLX's operators on a GPU, too."""
    from models.kernels import pooling_gpu

    pooling_gpu.are_right = lambda *variant: False


def torch_worker(name, *arguments, count=10):
    import in_torch

    return answer_requests(getattr(in_torch, name)(*arguments), count)


def busy(args):
    """Measure a step beside a process that keeps one core busy."""
    print(f"\nstep, {HEIGHT} x {WIDTH}, milliseconds beside a busy process, and times those without")
    for network in args.networks:
        worker, pairs = Worker("ours", network), []
        for _ in range(args.pairs):
            quiet = worker.measure()
            with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
                pairs.append((worker.measure(), quiet))
                other.kill()
        ratios = [beside / quiet for beside, quiet in pairs]
        print(f"  {network:10} {1000 * statistics.median(beside for beside, _ in pairs):7.0f}   "
              f"{statistics.median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f})", flush=True)  # fmt: skip
        worker.close()


# --- Fine-tuning: a step on a batch that is in memory ---

BATCH, TRAIN_SIZE = 32, 224  # the defaults of train_dream.py


def train(args):
    print(f"\ntrain, GoogLeNet, {BATCH} pictures of {TRAIN_SIZE} x {TRAIN_SIZE}, pictures/s" + (
        ", and times torch's" if args.against == "torch" else ""))  # fmt: skip
    for frozen in ("inception3b", "inception4e", "inception5b"):
        sides = {name: Worker(f"train {name}", frozen) for name in ("plain", "cached")}
        if args.against == "torch":
            sides["torch"] = Worker("train torch", frozen)
        times = {name: [] for name in sides}
        for _ in range(args.pairs):
            for name, worker in sides.items():
                times[name].append(worker.measure())
        line = [f"{name} {BATCH / statistics.median(seconds):7.1f}" for name, seconds in times.items()]
        if args.against == "torch":
            for name in ("plain", "cached"):
                ratio = statistics.median(b / a for a, b in zip(times[name], times["torch"], strict=True))
                line.append(f"{name} x {ratio:.2f}")
        print(f"  frozen to {frozen:12} {'   '.join(line)}", flush=True)
        for worker in sides.values():
            worker.close()


def our_trainer(frozen_to, cached):
    import models  # noqa: F401  (before MLX)
    from models.training.distributed import share_batches
    from models.training.freezing import freeze, learned_paths, split_layer, training_mode
    from models.training.step import frozen_features, inputs, make_optimizers, training_step
    from models.training.transfer import new_network

    import mlx.core as mx

    net = new_network("googlenet", 2)
    group = mx.distributed.init()
    learned = learned_paths(net, frozen_to)
    frozen = freeze(net, learned)
    split = split_layer(net, learned)
    share_batches(net, group)
    training_mode(net, frozen)
    optimizers = make_optimizers(net, "sgd", 0.01, 0.05, [path for path in learned if path.startswith("fc.")])
    step = training_step(net, split, optimizers, group, mx.ones(2), clip=5.0, decay=1e-4)
    batch = np.random.default_rng(0).uniform(0, 255, (BATCH, TRAIN_SIZE, TRAIN_SIZE, 3)).astype(np.float32)
    labels = mx.array(np.arange(BATCH) % 2)
    if cached:
        batch = np.array(frozen_features(net, batch, split)).astype(np.float16)

    def take_steps(count):
        for _ in range(count):
            step(inputs(net, batch, split), labels)

    return answer_requests(take_steps, 1)


# --- Whole dreams ---


def dream(args):
    import models

    import dream
    from dataset.images import read_image

    net = models.load("googlenet", weights=models.STARTER)
    image = read_image(ROOT / "assets/sample.jpg")
    targets = dream.parse_targets(net, ["inception4c"])
    in_gradient = 0.0
    original = dream.gradient_function

    def timed_gradient_function(*arguments):
        import mlx.core as mx

        gradient = original(*arguments)

        def timed(image, **options):
            nonlocal in_gradient
            mx.eval(image)
            start = time.perf_counter()
            g = gradient(image, **options)
            mx.eval(g)
            in_gradient += time.perf_counter() - start
            return g

        return timed

    dream.deepdream(net, image, ["inception4c"], octaves=1, steps=1)
    start = time.perf_counter()
    dream.deepdream(net, image, ["inception4c"])
    total = time.perf_counter() - start
    dream.gradient_function = timed_gradient_function
    start = time.perf_counter()
    dream.deepdream(net, image, ["inception4c"])
    timed_total = time.perf_counter() - start
    dream.gradient_function = original
    sizes = dream.octave_sizes(net, image.shape, targets, 4, 1.4)
    print(f"\ndream, {image.shape[1]} x {image.shape[0]}, {len(sizes)} octaves, 40 steps: {total:.1f} s")
    print(f"  outside the gradient (resizing, jitter, update, clipping): {1 - in_gradient / timed_total:.1%}")
    if args.against == "torch":
        dream_against_torch(args)


def dream_against_torch(args):
    sides = {"ours": Worker("dream ours", "googlenet"), "torch": Worker("dream torch", "googlenet")}
    times = [[worker.measure() for worker in sides.values()] for _ in range(args.pairs)]
    for worker in sides.values():
        worker.close()
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    ratios = [one / other for one, other in times]
    print(f"  ours {ours:.2f} s   torch {theirs:.2f} s   {statistics.median(ratios):.2f} "
          f"({min(ratios):.2f} .. {max(ratios):.2f})")  # fmt: skip


def sample(network):
    """Return (network with random weights, the sample picture, sizes of the octaves of a dream by default)."""
    import models  # noqa: F401  (before MLX)
    from models.dreaming.octaves import octave_sizes
    from models.dreaming.targets import parse_targets

    from dataset.images import read_image

    net = models.weights_file.Metadata(network, 10).build().eval()
    image = read_image(ROOT / "assets/sample.jpg")
    return net, image, octave_sizes(net, image.shape, parse_targets(net, [STEPS[network]]), 4, 1.4)


def our_dreamer(network):
    net, image, _ = sample(network)

    from dream import deepdream

    return answer_requests(lambda count: [deepdream(net, image, [STEPS[network]]) for _ in range(count)], 1)


def torch_dreamer(network):
    _, image, sizes = sample(network)
    return torch_worker("dreamer", STEPS[network], image, sizes, 10, count=1)


def memory(args):
    pixels(args)
    print("\nmemory, one step at full size, megabytes at the peak and seconds for the process")
    from dataset.images import write_image

    with tempfile.TemporaryDirectory() as folder:
        for height, width in ((1000, 1000), (2000, 2000), (3000, 4000)):
            path = Path(folder) / "picture.png"
            write_image(path, np.random.default_rng(0).uniform(0, 255, (height, width, 3)), compress_level=0)
            options = ["-o", Path(folder) / "out.jpg", "--octaves", "1", "--steps", "1", "--quiet"]
            start = time.perf_counter()
            process = subprocess.Popen([sys.executable, ROOT / "dream.py", path, *options], stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
            seconds = time.perf_counter() - start
            print(f"  {height * width / 1e6:4.0f} megapixels {peak:7.0f} {seconds:7.1f}" + " failed" * bool(status))


def pixels(args):
    """Measure what models/registry.py keeps as gradient_bytes, of the place where MLX computes."""
    print("\nmemory of a step, bytes a pixel (768 x 768); MLX's peak and cache, megabytes")
    import models
    from models.dreaming.targets import parse_targets

    import mlx.core as mx

    from dream import gradient_function

    image = mx.array(np.random.default_rng(0).uniform(0, 255, (768, 768, 3)).astype(np.float32))
    for name in args.networks:
        net = models.weights_file.Metadata(name, 10).build().eval()
        mx.eval(net.parameters())
        gradient = gradient_function(net, parse_targets(net, [STEPS[name]]))
        mx.eval(gradient(image))  # prepares what the others share
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(gradient(image))
        peak = mx.get_peak_memory()
        print(f"  {name:22}{(peak - before) / 768**2:7.0f} {peak / 1e6:9.0f} {mx.get_cache_memory() / 1e6:9.0f}")


def kernels(args):
    print("\nkernels of a step, as a GPU is given them (tests/tools/count_kernels.py tells which)")
    for name in args.networks:
        command = [
            sys.executable,
            Path(__file__).with_name("count_kernels.py"),
            "--network",
            name,
            "--layer",
            STEPS[name],
        ]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        print(f"  {name:12} {done.stdout.splitlines()[0]}", flush=True)


def load(args):
    print("\nload, seconds")
    commands = {
        "dream.py --help": [ROOT / "dream.py", "--help"],
        "import numpy": ["-c", "import numpy"],
        "load the starter": ["-c", "import models; models.load('googlenet', weights=models.STARTER)"],
    }
    for name, command in commands.items():
        times = []
        for _ in range(args.pairs):
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
            times.append(time.perf_counter() - start)
        print(f"  {name:20} {statistics.median(times):.2f}")


WORKERS = {
    "ours": our_worker,
    "plain": lambda network: our_worker(network, use_plain_operators),
    "operators": lambda network: our_worker(network, use_no_kernels),
    "torch": lambda network: torch_worker("stepper", network, STEPS[network], picture()),
    "dream ours": our_dreamer,
    "dream torch": torch_dreamer,
    "train plain": lambda frozen_to: our_trainer(frozen_to, cached=False),
    "train cached": lambda frozen_to: our_trainer(frozen_to, cached=True),
    "train torch": lambda frozen_to: torch_worker("trainer", frozen_to, BATCH, TRAIN_SIZE, count=1),
}

if __name__ == "__main__":
    sys.exit(main())
