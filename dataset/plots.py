"""Numbers as pictures, drawn with Pillow: curves, a confusion matrix, pictures in rows and columns with captions.

Each returns a float32 image H x W x 3, 0..255, for dataset.images.write_image.
"""

import math

import numpy as np

from .images import resize_image, to_uint8

GAP, LINE = 8, 15  # pixels: between the images of a contact sheet, and a line of text
COLOURS = ("#c0392b", "#2471a3", "#229954", "#b9770e")


def font(size=13):
    from PIL import ImageFont

    return ImageFont.load_default(size)


def sheet(width, height):
    """A white (image, drawing)."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, height), "white")
    return image, ImageDraw.Draw(image)


def curves(panels, x, label):
    """Panels side by side, each (title, {name: values}); values go with the numbers `x` and may be None in places.

    label: what x is, under the axis.
    """
    width, height, left, top = 440, 300, 56, 44
    image, draw = sheet(width * len(panels), height)
    for number, (title, lines) in enumerate(panels):
        origin = number * width
        values = [v for line in lines.values() for v in line if v is not None and math.isfinite(v)]
        ticks = nice_ticks(min(values, default=0.0), max(values, default=1.0))
        low, high = ticks[0], ticks[-1]
        right, bottom = origin + width - 16, height - 44
        first, last = x[0], max(x[-1], x[0] + 1)

        def place(a, b, origin=origin, right=right, bottom=bottom, low=low, high=high, first=first, last=last):
            across = (a - first) / (last - first)
            return (
                origin + left + across * (right - origin - left),
                bottom - (b - low) / (high - low) * (bottom - top),
            )

        draw.text((origin + left, 8), title, "black", font(15))
        for tick in ticks:
            y = place(first, tick)[1]
            draw.line((origin + left, y, right, y), "#dddddd")
            draw.text((origin + left - 6, y), f"{tick:g}", "#555555", font(11), anchor="rm")
        for tick in dict.fromkeys((first, (first + last) // 2, last)):
            draw.text((place(tick, low)[0], bottom + 6), f"{tick:g}", "#555555", font(11), anchor="mt")
        draw.text(((origin + left + right) / 2, bottom + 22), label, "#555555", font(12), anchor="mt")
        for (name, line), colour, row in zip(lines.items(), COLOURS, range(len(lines)), strict=False):
            points = [place(a, b) for a, b in zip(x, line, strict=True) if b is not None and math.isfinite(b)]
            if len(points) > 1:
                draw.line(points, colour, 2, joint="curve")
            for a, b in points if len(points) < 40 else points[-1:]:
                draw.ellipse((a - 2, b - 2, a + 2, b + 2), colour)
            draw.text((right - 110 * (len(lines) - row) + 20, 28), name, colour, font(12))
    return np.asarray(image, np.float32)


def nice_ticks(low, high):
    """Some four round numbers that span low..high."""
    span = max(high - low, 1e-6 * max(abs(low), abs(high))) or 1.0
    step = 10 ** math.floor(math.log10(span))
    step *= next(factor for factor in (0.2, 0.25, 0.5, 1, 2, 2.5, 5) if span / (step * factor) <= 5)
    start, count = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{step * i:.10g}") for i in range(start, max(count, start + 1) + 1)]


def shortened(name):
    return name if len(name) <= 22 else f"{name[:21]}…"


def confusion(matrix, classes):
    """Rows: what pictures are; columns: what they were taken for. matrix: counts (C, C). Darker: a larger share of
    its row."""
    count = len(classes)
    cell = max(6, min(48, 720 // count))
    names = [shortened(name) for name in classes]
    size = min(12, max(7, cell - 1))
    margin = int(max(font(size).getlength(name) for name in names)) + 16
    image, draw = sheet(max(margin + cell * count + 16, 310), margin + cell * count + 34)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    top = 30
    draw.text((8, 8), "rows: what it is; columns: what it was taken for", "black", font(12))
    for row in range(count):
        y = top + margin + row * cell
        draw.text((margin - 6, y + cell / 2), names[row], "black", font(size), anchor="rm")
        for column in range(count):
            x = margin + column * cell
            share = shares[row, column]
            tint = (255 - np.array([205, 140, 75]) * share).astype(int)
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), tuple(int(v) for v in tint))
            if cell >= 24 and matrix[row, column]:
                ink = "white" if share > 0.55 else "black"
                text = str(int(matrix[row, column]))
                draw.text((x + cell / 2 - 1, y + cell / 2), text, ink, font(size), anchor="mm")
    for column in range(count):
        label, pen = sheet(margin - 6, size + 4)
        pen.text((0, 0), names[column], "black", font(size))
        image.paste(label.rotate(90, expand=True), (margin + column * cell + (cell - size) // 2, top + 4))
    return np.asarray(image, np.float32)


def strip(rows, columns):
    """Rows of images of one size, {caption: images}; `columns` are the captions above. None is an empty place."""
    from PIL import Image

    names = [shortened(name) for name in rows]
    height, width = next(image.shape[:2] for row in rows.values() for image in row if image is not None)
    left, top = int(max(font().getlength(name) for name in names)) + 16, 24
    image, draw = sheet(left + len(columns) * (width + 4), top + len(rows) * (height + 4))
    for column, caption in enumerate(columns):
        draw.text((left + column * (width + 4) + width / 2, 5), caption, "black", font(13), anchor="mt")
    for y, name, row in zip(range(top, image.height, height + 4), names, rows.values(), strict=True):
        draw.text((left - 8, y + height / 2), name, "black", font(13), anchor="rm")
        for x, picture in zip(range(left, image.width, width + 4), row, strict=True):
            if picture is not None:
                image.paste(Image.fromarray(to_uint8(picture)), (x, y))
    return np.asarray(image, np.float32)


def contact_sheets(cells, width=200, columns=5, rows=6):
    """Yields sheets, float32 H x W x 3, of (label, image) cells; every sheet holds columns x rows of them.

    width: of a picture on the sheet, pixels; images of other widths are resized.
    """
    from PIL import Image, ImageDraw

    cells = [(label, resize_image(image, (max(1, round(image.shape[0] * width / image.shape[1])), width)))
             for label, image in cells]  # fmt: skip
    for start in range(0, len(cells), columns * rows):
        page = cells[start : start + columns * rows]
        height = max(image.shape[0] for _, image in page)
        across, down = min(columns, len(page)), -(-len(page) // columns)
        sheet = Image.new("RGB", (across * (width + GAP) + GAP, down * (height + LINE + GAP) + GAP), "white")
        draw = ImageDraw.Draw(sheet)
        for number, (label, image) in enumerate(page):
            x, y = GAP + number % columns * (width + GAP), GAP + number // columns * (height + LINE + GAP)
            sheet.paste(Image.fromarray(to_uint8(image)), (x, y))
            while draw.textlength(label, font(11)) > width:
                label = label[:-3] + ".."
            draw.text((x, y + height + 1), label, "black", font(11))
        yield np.asarray(sheet, np.float32)


def color_axes(mean, matrix, colors):
    """Return an image 620 x 880: the colors along each column of a color matrix, from -2 to 2 standard deviations about
    the mean (3,), 0..1; then a sample of pixels N x 3, 0..255, and the same whitened, along the first two axes."""
    from PIL import Image, ImageDraw

    sheet = Image.new("RGB", (880, 620), "gainsboro")
    draw = ImageDraw.Draw(sheet)
    share = (matrix**2).sum(axis=0) / max((matrix**2).sum(), 1e-12)
    steps = np.linspace(-2, 2, 840)
    for axis in range(3):
        strip = np.clip(mean + steps[:, None] * matrix[:, axis], 0, 1) * 255
        strip = np.broadcast_to(np.rint(strip).astype(np.uint8), (26, 840, 3))
        sheet.paste(Image.fromarray(np.ascontiguousarray(strip)), (20, 24 + 46 * axis))
        text = f"colour axis {axis + 1}, -2 to 2 standard deviations; {share[axis]:.1%} of the variance"
        draw.text((20, 7 + 46 * axis), text, "black", font())

    dots = np.asarray(sheet).copy()
    values = colors / 255
    variances = (matrix**2).sum(axis=0)
    inverse = matrix / np.where(variances > 1e-9, variances, np.inf)  # columns are orthogonal: M^-1 = inverse^T
    whitened = (values - mean) @ inverse
    for left, points in ((20, values[:, [0, 2]]), (450, whitened[:, :2] / 8 + 0.5)):
        column = left + np.rint(points[:, 0] * 409).astype(int)
        row = 599 - np.rint(points[:, 1] * 409).astype(int)
        inside = (column >= left) & (column < left + 410) & (row >= 190) & (row < 600)
        dots[row[inside], column[inside]] = colors[inside]
    sheet = Image.fromarray(dots)
    draw = ImageDraw.Draw(sheet)
    for left, text in (
        (20, "before: red to the right, blue upwards, 0..255"),
        (450, "whitened: axes 1 and 2, -4 to 4 standard deviations"),
    ):
        draw.rectangle((left - 1, 189, left + 410, 600), outline="grey")
        draw.text((left, 164), text, "black", font())
    return np.asarray(sheet, np.float32)
