"""Damage files: blindly, byte by byte, and knowingly, by the chunks, boxes and fields that they consist of.

A mutation is a function (data, rng) -> data; rng is a random.Random.
"""

import struct
import zlib

# --- Bytes ---


def flip_bits(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def set_bytes(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 2, 16))):
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(data)


def set_number(data, rng):
    """Write a number that programs stumble over somewhere."""
    size, order = rng.choice((2, 4)), rng.choice("<>")
    number = rng.choice((0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
    at = rng.randrange(len(data))
    packed = struct.pack(order + {2: "H", 4: "I"}[size], number & (256**size - 1))
    return data[:at] + packed + data[at + size :]


def truncate(data, rng):
    return data[: rng.randrange(len(data))]


def delete_range(data, rng):
    start, length = rng.randrange(len(data)), rng.choice((1, 2, 16, 512))
    return data[:start] + data[start + length :]


def repeat_range(data, rng):
    start, length = rng.randrange(len(data)), rng.choice((1, 2, 16, 512))
    return data[: start + length] + data[start:]


def swap_ranges(data, rng):
    length = rng.choice((1, 4, 64))
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    if a + length > b:
        return data[::-1] if rng.random() < 0.05 else data[:a] + data[b:] + data[a:b]
    return data[:a] + data[b : b + length] + data[a + length : b] + data[a : a + length] + data[b + length :]


BYTES = (flip_bits, set_bytes, set_number, truncate, delete_range, repeat_range, swap_ranges)


def damage(data, rng):
    return rng.choice(BYTES)(data, rng) if data else data


# --- Structure ---


def reorder(parts, rng):
    """Lose, repeat, swap or damage one of a list of [kind, content]; the first stays where it is."""
    parts = [list(part) for part in parts]
    if len(parts) < 2:
        return parts
    i = rng.randrange(len(parts))
    what = rng.randrange(5)
    if what == 0 and i:
        del parts[i]
    elif what == 1:
        parts.insert(i, parts[i])
    elif what == 2 and i:
        j = rng.randrange(1, len(parts))
        parts[i], parts[j] = parts[j], parts[i]
    elif what == 3:
        parts[i][0] = rng.choice(parts)[0]
    else:
        parts[i][1] = damage(parts[i][1], rng)
    return parts


def mutate_png(data, rng):
    """Damage chunks and keep their checksums right, or damage their lengths."""
    parts, at = [], 8
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        parts.append([kind, data[at + 8 : at + 8 + length]])
        at += 12 + length
    out = data[:8]
    for kind, content in reorder(parts, rng):
        length = len(content)
        if rng.random() < 0.03:
            length = rng.choice((0, length + 1, 0x7FFFFFFF, 0xFFFFFFFF))
        out += struct.pack(">I", length) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return out


def mutate_jpeg(data, rng):
    """Damage segments and keep their lengths right, or not."""
    parts, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        parts.append([data[at : at + 2], data[at + 4 : at + 2 + length]])
        at += 2 + length
    out = data[:2]
    for marker, content in reorder(parts, rng):
        length = len(content) + 2
        if rng.random() < 0.03:
            length = rng.choice((0, 1, 2, length + 1, 0xFFFF))
        out += marker + struct.pack(">H", length & 0xFFFF) + content
    return out + (data[at:] if rng.random() < 0.8 else damage(data[at:], rng))


def mutate_tiff(data, rng):
    """Damage the entries of the first directory of a TIFF, or of the EXIF in another file."""
    at = max(data.find(b"II\x2a\0"), data.find(b"MM\0\x2a"))
    if at < 0 or at + 8 > len(data):
        return flip_bits(data, rng)
    order = "<" if data[at : at + 2] == b"II" else ">"
    first = at + struct.unpack(order + "I", data[at + 4 : at + 8])[0]
    if first + 2 > len(data):
        return flip_bits(data, rng)
    count = struct.unpack(order + "H", data[first : first + 2])[0]
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        entry = first + 2 + 12 * rng.randrange(max(1, count))
        offset, code, values = rng.choice((
            (0, "H", (254, 256, 258, 262, 273, 274, 277, 282, 330, 338, 339, 34665, 34853, 50706)),
            (2, "H", range(14)),
            (4, "I", (0, 1, 2, 3, 1000, 0x10000, 0xFFFFFFFF)),
            (8, "I", (0, 1, 6, 8, 16, 32, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, rng.randrange(len(data)))),
        ))  # fmt: skip
        packed = struct.pack(order + code, rng.choice(values))
        data[entry + offset : entry + offset + len(packed)] = packed
    return bytes(data)


def mutate_riff(data, rng):
    parts, at = [], 12
    while at + 8 <= len(data):
        kind, length = struct.unpack("<4sI", data[at : at + 8])
        parts.append([kind, data[at + 8 : at + 8 + length]])
        at += 8 + length + length % 2
    body = b""
    for kind, content in reorder(parts, rng):
        length = len(content) if rng.random() > 0.03 else rng.choice((0, len(content) + 1, 0xFFFFFFFF))
        body += kind + struct.pack("<I", length) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + data[8:12] + body


def mutate_boxes(data, rng):
    """Damage the boxes of ISO base media (HEIC, AVIF, MP4, MOV): those on top, or, at any depth, a size or a kind."""
    if rng.random() < 0.4:
        parts, at = [], 0
        while at + 8 <= len(data):
            length, kind = struct.unpack(">I4s", data[at : at + 8])
            length = length if length >= 8 else len(data) - at
            parts.append([kind, data[at + 8 : at + length]])
            at += length
        return b"".join(struct.pack(">I", len(content) + 8) + kind + content for kind, content in reorder(parts, rng))
    inner = [i for i in range(4, len(data) - 4) if data[i : i + 4].isalpha() and data[i - 4 : i - 2] == b"\0\0"]
    if not inner:
        return flip_bits(data, rng)
    at = rng.choice(inner)
    if rng.random() < 0.3:
        return data[:at] + data[rng.choice(inner) :][:4] + data[at + 4 :]
    if rng.random() < 0.5:
        size = rng.choice((0, 1, 7, 8, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, rng.randrange(1 << 16)))
        return data[: at - 4] + struct.pack(">I", size) + data[at:]
    field = at + 4 + rng.randrange(24)
    return data[:field] + bytes([rng.randrange(256)]) + data[field + 1 :]


STRUCTURE = {
    b"\x89PNG": (mutate_png, mutate_png, mutate_tiff),
    b"\xff\xd8": (mutate_jpeg, mutate_tiff),
    b"II": (mutate_tiff,),
    b"MM": (mutate_tiff,),
    b"RIFF": (mutate_riff, mutate_riff, mutate_tiff),
}


def mutate(data, rng):
    """Damage a file once or a few times, half of the time by its structure."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if len(data) < 8:
            break
        structure = [found for magic, found in STRUCTURE.items() if data.startswith(magic)]
        structure += [(mutate_boxes,)] if data[4:8] == b"ftyp" else []
        if structure and rng.random() < 0.5:
            data = rng.choice(structure[0])(data, rng)
        else:
            data = damage(data, rng)
    return data
