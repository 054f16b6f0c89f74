"""A real BLAS under MLX on Linux CPUs.

MLX's Linux wheel carries the reference BLAS, whose float32 matrix product runs at 5 GFLOP/s where OpenBLAS reaches 200.
SciPy's wheel brings an OpenBLAS along, but under names of its own (`scipy_cblas_sgemm`), so the dynamic linker
cannot put it in place. We do what the linker would: write the address of SciPy's function into the slot
through which libmlx.so calls `cblas_sgemm` (its entry in the procedure linkage table's part of the GOT).
Where SciPy brings none, a system OpenBLAS or MKL is loaded ahead of MLX, whose symbols then come first.

macOS is left alone: MLX uses Accelerate and Metal there. DEEPDREAM_BLAS=off leaves Linux alone, too.
"""

import ctypes
import functools
import glob
import importlib.util
import json
import os
import struct
import sys
from pathlib import Path

NOTE = (
    "note: no fast BLAS found, so dreaming on this CPU takes about 30 times longer than it should; "
    "`pip install scipy` or, as root, `apt install libopenblas0` mends that"
)
SYSTEM = ("libopenblas.so.0", "libopenblas.so", "libmkl_rt.so.3", "libmkl_rt.so.2")
FUNCTIONS = ("cblas_sgemm", "cblas_dgemm")
SMALL_PRODUCT = 10**6  # multiplications of the largest product that OpenBLAS takes for small

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h

found = None  # the library that load() put under MLX


def wanted():
    return sys.platform == "linux" and os.environ.get("DEEPDREAM_BLAS") != "off"


def set_variables():
    """Set the variables that libraries read while they are loaded."""
    if wanted():
        # MLX's own thread needs the processor as soon as a product is done: 2^16 cycles of waiting are enough
        os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")
        # the bands (bands.py) are laid out side by side; at MLX's own width of 20, one would wait for the other
        os.environ.setdefault("MLX_BFS_MAX_WIDTH", "1000")


def load():
    """Put a fast BLAS under MLX; to be called after set_variables() and before the first `import mlx.core`.

    Sets and returns `found`.
    """
    global found
    if found is None and wanted():
        found = from_scipy() or from_system()
        share_cores(bands())
        keep_memory()
    return found


def bands(alone=False):
    """Return how many bands images are cut into: what DEEPDREAM_BANDS says, or one for each core of this process;
    `alone`: were it the only one of an mlx.launch here.
    """
    asked = os.environ.get("DEEPDREAM_BANDS")
    if asked is None:
        return cores(alone) if sys.platform == "linux" else 1
    if not asked.isdecimal() or int(asked) < 1:
        raise SystemExit(f"error: DEEPDREAM_BANDS is {asked!r}, and should be a whole number of at least 1")
    return int(asked)


def cores(alone=False):
    """Count the processors for this process, of those that it and others of an mlx.launch may use; `alone`: all."""
    return max(1, len(os.sched_getaffinity(0)) // (1 if alone else processes_here()))


def share_cores(count):
    """Let the BLAS use a share of the cores for each of `count` products at a time, unless the environment says how
    many threads it has: threads of two products would wait for one another.
    """
    if found and not {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"} & set(os.environ):
        library = ctypes.CDLL(found)
        for name in ("scipy_openblas_set_num_threads", "openblas_set_num_threads", "MKL_Set_Num_Threads"):
            if hasattr(library, name):
                getattr(library, name)(max(1, cores() // count))


@functools.cache
def small_products():
    """Return whether the BLAS multiplies small matrices without laying them out anew: OpenBLAS with AVX-512 does."""
    for name in ("scipy_openblas_get_corename", "openblas_get_corename") if found else ():
        core = getattr(ctypes.CDLL(found), name, None)
        if core:
            core.restype = ctypes.c_char_p
            return core() in (b"SkylakeX", b"Cooperlake", b"SapphireRapids")
    return False


def processes_here():
    """Count the processes of an mlx.launch on this machine, which would wait for one another's threads."""
    try:
        nodes = json.loads(Path(os.environ["MLX_HOSTFILE"]).read_text())
        hosts = [addresses[0].rpartition(":")[0] for addresses in nodes]
        return hosts.count(hosts[int(os.environ["MLX_RANK"])])
    except (LookupError, OSError, ValueError, TypeError, AttributeError):  # not of the ring backend
        return 1


def keep_memory():
    """Let malloc keep freed memory for the next operation.

    By default it gives large pieces back to the system, which must clear every page of them when the next operation
    asks: that made convolutions twice as slow.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_ARENA_MAX, 1)):
            mallopt(option, value)


def missing():
    """Return whether MLX is about to compute on a Linux CPU with its reference BLAS."""
    import mlx.core as mx

    return sys.platform == "linux" and not found and mx.default_device() == mx.Device(mx.cpu)


def from_system():
    for name in SYSTEM:
        try:
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
            return name
        except OSError:
            continue
    return None


def from_scipy():
    spec = importlib.util.find_spec("scipy")
    if spec is None:
        return None
    folder = Path(spec.submodule_search_locations[0]).parent / "scipy.libs"
    for path in glob.glob(str(folder / "libscipy_openblas-*.so")):  # "openblas64_" would count in 64-bit integers
        try:
            library = ctypes.CDLL(path)
            addresses = {name: address_of(getattr(library, "scipy_" + name)) for name in FUNCTIONS}
            if redirect(addresses):
                return path
        except (OSError, AttributeError, ValueError, struct.error):
            continue
    return None


def address_of(function):
    return ctypes.cast(function, ctypes.c_void_p).value


def redirect(addresses):
    """Make libmlx.so call {symbol: address}. True if every symbol had a writable slot."""
    import mlx.core  # noqa: F401  (maps libmlx.so)

    slots = call_slots("libmlx.so", set(addresses))
    if set(slots) != set(addresses) or not all(writable(slot) for slot in slots.values()):
        return False
    for name, slot in slots.items():
        ctypes.c_uint64.from_address(slot).value = addresses[name]
    return True


def mappings():
    """Yield (start, end, permissions, file) of every memory mapping of this process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        start, end = (int(part, 16) for part in fields[0].split("-"))
        yield start, end, fields[1], fields[5] if len(fields) > 5 else ""


def writable(address):
    return any(start <= address < end and "w" in permissions for start, end, permissions, _ in mappings())


def call_slots(library, names):
    """Find {symbol: address of its call slot} for the imported functions `names` of a loaded library.

    Reads the 64-bit ELF image in memory: program headers -> dynamic section -> symbols and PLT relocations
    (System V ABI, chapter 5; R_X86_64_JUMP_SLOT and R_AARCH64_JUMP_SLOT share the Rela layout).
    """
    base = min((start for start, _, _, file in mappings() if file.endswith("/" + library)), default=None)
    if base is None:
        return {}
    header = ctypes.string_at(base, 64)
    if header[:6] != b"\x7fELF\x02\x01":  # 64-bit, little-endian
        return {}
    offset, size, count = struct.unpack_from("<Q", header, 32)[0], *struct.unpack_from("<HH", header, 54)
    for i in range(count):
        kind, _, _, address = struct.unpack_from("<IIQQ", ctypes.string_at(base + offset + i * size, 24))
        if kind == 2:  # PT_DYNAMIC
            break
    else:
        return {}

    dynamic = {}
    entry = base + address
    while (pair := struct.unpack("<QQ", ctypes.string_at(entry, 16)))[0] != 0:
        dynamic[pair[0]] = pair[1]
        entry += 16
    # glibc has turned these addresses into absolute ones; other linkers leave them relative to the base
    strings, symbols, relocations = (d if d >= base else base + d for d in (dynamic[5], dynamic[6], dynamic[23]))

    slots = {}
    for i in range(dynamic[2] // 24):
        where, info, _ = struct.unpack("<QQq", ctypes.string_at(relocations + 24 * i, 24))
        name_offset = struct.unpack("<I", ctypes.string_at(symbols + 24 * (info >> 32), 4))[0]
        name = ctypes.string_at(strings + name_offset).decode()
        if name in names:
            slots[name] = base + where
    return slots
