"""Damage what holds data rather than pictures, knowingly: JSON by its values, and .npz files by their arrays.

A mutation is a function (data, rng) -> data; rng is a random.Random.
"""

import io
import json
import zipfile

import mutate
import numpy as np

STRANGE = (None, True, False, 0, -1, 1, 2, 0.5, 1e-320, 1e308, -1e308, 2**31, 2**63, 2**70, 10**400, float("nan"))
STRANGE += (float("inf"), -float("inf"), "", "x", "0", "-1", "nan", "../../x", "/etc/passwd", "a\0b", "\udce9", "\n")
STRANGE += ("x" * 5000, "1" * 5000, [], {}, [[]], [None], {"": None}, [0] * 2000)
SHAPES = ("()", "(0,)", "(1,)", "(3,)", "(-1,)", "(2, 3)", "(99999999999,)", "(1,) * 3", "(" + "1, " * 30 + "1)")


# --- JSON ---


def mutate_json(data, rng):
    """Damage values, keys and their order in JSON text; now and then its letters."""
    if rng.random() < 0.15:
        return mutate.damage(data, rng)
    try:
        tree = json.loads(data)
        for _ in range(rng.choice((1, 1, 2, 4))):
            tree = mutate_tree(tree, rng)
        if rng.random() < 0.01:
            return b"[" * 200_000
        return json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")
    except (ValueError, RecursionError):  # it was damaged, or nested too deep, before
        return mutate.damage(data, rng)


def mutate_lines(data, rng):
    """Damage lines of text: their order, and each as JSON where it is some."""
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2))):
        i = rng.randrange(len(lines))
        what = rng.randrange(6)
        if what == 0:
            del lines[i:]
            lines = lines or [b""]
        elif what == 1:
            lines.insert(i, rng.choice(lines))
        elif what == 2:
            lines[i] = rng.choice(lines)
        else:
            lines[i] = mutate_json(lines[i], rng)
    return b"\n".join(lines)


def nodes(tree, found=None):
    """Return [(container, key)] of all values in a tree of lists and dicts."""
    found = [] if found is None else found
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found.append((tree, key))
        nodes(value, found)
    return found


def mutate_tree(tree, rng):
    places = nodes(tree)
    if not places or rng.random() < 0.02:
        return rng.choice(STRANGE)
    container, key = rng.choice(places)
    what = rng.randrange(7)
    if what == 0:
        del container[key]
    elif what == 1 and isinstance(container, dict):
        container[rng.choice([str(key) + "x", "", *map(str, container)])] = container.pop(key)
    elif what == 2 and isinstance(container, list):
        container.extend([container[key]] * rng.choice((1, 2, 100)))
    elif what == 3:
        other, place = rng.choice(places)
        container[key] = json.loads(json.dumps(other[place])) if place in other or isinstance(other, list) else None
    elif what == 4 and isinstance(container[key], (int, float)) and not isinstance(container[key], bool):
        factor = rng.choice((-1, 2, 0.5, 1e9, 1e-9))
        container[key] = (factor if abs(container[key]) < 1e300 else -1) * container[key]
    elif what == 5 and isinstance(container[key], str):
        container[key] = mutate.damage(container[key].encode(errors="replace"), rng).decode(errors="replace")
    else:
        container[key] = rng.choice(STRANGE)
    return tree


# --- Arrays ---


def mutate_npz(data, rng):
    """Damage the arrays of an .npz file, their names and headers; half of the time the text that one may hold."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            parts = [[name, file.read(name)] for name in file.namelist()]
    except Exception:  # damaged before: what zipfile may raise is not ours to list
        return mutate.damage(data, rng)
    if not parts:
        return mutate.damage(data, rng)
    texts = [part for part in parts if part[0].startswith("__")]
    for _ in range(rng.choice((1, 1, 2, 3))):
        if texts and rng.random() < 0.5:
            part = rng.choice(texts)
            part[1] = npy(np.frombuffer(mutate_json(part[1][128:].strip() or b"{}", rng), np.uint8))
        elif rng.random() < 0.3:
            parts = mutate.reorder(parts, rng) or parts
        else:
            part = rng.choice(parts)
            part[1] = mutate_npy(part[1], rng)
    return zipped(parts, rng)


def mutate_npy(data, rng):
    """Damage one array: its numbers, its type, its shape, its header."""
    what = rng.randrange(8)
    if what == 0:
        return mutate.damage(data, rng)
    if what == 1:
        start = data.find(b"'shape': ") + 9
        return data[:start] + rng.choice(SHAPES).encode() + data[data.find(b")", start) + 1 :]
    if what == 2:
        kinds = (b"'<f2'", b"'<f8'", b"'>f4'", b"'|O'", b"'<U3'", b"'|u1'", b"'<c8'", b"'<i8'", b"[('a', '<f4')]")
        start = data.find(b"'descr': ") + 9
        return data[:start] + rng.choice(kinds) + data[data.find(b", 'fortran", start) :]
    if what == 3:
        return data.replace(b"False", b"True ", 1)
    try:
        array = np.load(io.BytesIO(data))
    except Exception:  # damaged before
        return mutate.damage(data, rng)
    if what == 4:
        sorts = ("f2", "f4", "f8", "i4", "u1", "?", "c8", "U3") if array.dtype.kind != "U" else ("U1", "U2", "S3")
        with np.errstate(all="ignore"):
            return npy(array.astype(rng.choice(sorts)))
    if what == 5:
        return npy(array.ravel() if array.ndim > 1 else array.reshape(1, -1))
    if what == 6:
        return npy(array[: array.shape[0] // 2] if array.ndim else array.reshape(1))
    changed = np.array(array, copy=True).ravel()
    if changed.size and changed.dtype.kind in "fiu":
        values = (np.nan, np.inf, -np.inf, 1e30, 0) if changed.dtype.kind == "f" else (0, 1, 127)
        with np.errstate(over="ignore"):
            changed[:: rng.choice((1, 7, changed.size))] = rng.choice(values)
    return npy(changed.reshape(array.shape))


def npy(array):
    out = io.BytesIO()
    with np.errstate(all="ignore"):
        np.lib.format.write_array(out, np.asarray(array), allow_pickle=False)
    return out.getvalue()


def zipped(parts, rng):
    """Return a zip archive of [name, content], perhaps compressed, perhaps with a number of its directory changed."""
    out = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(out, "w", method, compresslevel=1) as file, ignored_warnings():
        for name, content in parts:
            file.writestr(name, content)
    data = out.getvalue()
    if rng.random() < 0.1:  # the directory, at the end
        start = max(0, len(data) - rng.choice((22, 200, 4000)))
        data = data[:start] + mutate.damage(data[start:], rng)
    return data


def ignored_warnings():
    """Two entries of one name are meant."""
    import warnings

    context = warnings.catch_warnings()
    warnings.simplefilter("ignore")
    return context
