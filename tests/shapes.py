"""A made-up parquet file of shapes, each drawn in the same few styles."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

STYLES = {
    "flat": {"fill": (40, 120, 220), "outline": None, "width": 1},
    "line": {"fill": (255, 255, 255), "outline": (0, 0, 0), "width": 3},
    "glow": {"fill": (250, 200, 60), "outline": (200, 60, 20), "width": 6},
}
SIDE = 64


def drawing(concept, style):
    """A polygon whose corners, place and size are the concept's, in one of the styles."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    size, place = 10 + 3 * (concept % 4), (20 + 12 * (concept % 3), 22 + 9 * (concept // 4))
    ImageDraw.Draw(image).regular_polygon(
        (*place, size), 3 + concept % 5, rotation=20 * concept, **STYLES[style]
    )
    out = io.BytesIO()
    image.save(out, "png")
    return out.getvalue()


def columns(concepts=12, styles=tuple(STYLES)):
    pairs = [(concept, style) for style in styles for concept in range(concepts)]
    return {
        "concept": [f"shape-{concept:02d}" for concept, _ in pairs],
        "style": [style for _, style in pairs],
        "group": [("small", "large")[concept % 4 > 1] for concept, _ in pairs],
        "name_en": [f"shape number {concept}" for concept, _ in pairs],
        "image": [drawing(concept, style) for concept, style in pairs],
    }


def write(path, **changes):
    """Writes the file with some columns replaced, or left out where None; returns its path."""
    whole = columns() | changes
    pq.write_table(pa.table({name: c for name, c in whole.items() if c is not None}), path)
    return path
