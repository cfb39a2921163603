"""A recommender without a ranker, for tests of what stands on top: taste alone decides."""

import dataclasses
import io

import numpy as np
import small_world
from PIL import Image, ImageDraw

from umair_jax.data.snapshot import moment_after
from umair_jax.recommending import choice, reasons
from umair_jax.recommending.filters import Rules
from umair_jax.recommending.recommender import Pick, Recommendations, Recommender
from umair_jax.recommending.vectors import UnitVectors

MODALITIES = ("meta", "content", "style", "text")
WEIGHTS = (0.1, 0.2, 0.3, 0.4)


class Drawings:
    """A picture for every row but each seventh, which is broken."""

    def __init__(self):
        self.read_rows = []

    def read(self, row):
        self.read_rows.append(row)
        if row % 7 == 0:
            return b"no picture"
        image = Image.new("RGB", (96, 96), (255, 255, 255))
        pen = ImageDraw.Draw(image)
        pen.ellipse((12, 12, 84, 84), fill=(40 * row % 256, 90 * row % 256, 160))
        pen.text((40, 40), str(row), (255, 255, 255))
        encoded = io.BytesIO()
        image.save(encoded, "PNG")
        return encoded.getvalue()


def world(items=150, **changes):
    """The made-up site with pictures, every drawing published."""
    made = small_world.dataset(items=items)
    columns = dataclasses.replace(made.items, published=np.full(items + 1, 5), **changes)
    return dataclasses.replace(made, items=columns, images=Drawings())


class ToyRecommender(Recommender):
    """Has what the gallery asks of a Recommender."""

    def __init__(self, dataset):
        self.dataset, self.moment, self.step = dataset, moment_after(dataset), 7
        self.modalities = MODALITIES
        bank = small_world.bank(items=len(dataset.items))
        broken = np.arange(len(dataset.items) + 1) % 7 == 0
        centred = {
            n: getattr(bank, n) - getattr(bank, n).mean(axis=0) for n in ("content", "style")
        }
        masked = {n: np.where(broken[:, None], 0, v).astype(np.float32) for n, v in centred.items()}
        self.vectors = UnitVectors(dataclasses.replace(bank, **masked))
        self._rules = Rules(dataset)
        self.asked = []

    def recommend(self, who, request):
        self.asked.append((who, request))
        allowed = self._rules.allowed(who, request.filters, self.moment)
        rows = np.flatnonzero(allowed)
        share = {"content": 1 - request.balance, "style": 1 + request.balance}
        score = np.zeros(len(rows))
        if len(who.liked):
            score += sum(w * self.vectors.taste(n, who.liked)[rows] for n, w in share.items())
        artists = [self.dataset.items.artist[row] for row in rows]

        def alike(place, others):
            return self.vectors.cosines("style", rows[[place]], rows[others])[0]

        chosen = choice.choose(score, artists, alike, request.choice)
        why = reasons.nearest_liked(self.vectors, rows[chosen], who.liked, {})
        picks = tuple(
            Pick(int(rows[place]), float(1 / (1 + np.exp(-score[place]))), WEIGHTS, because)
            for place, because in zip(chosen, why, strict=True)
        )
        return Recommendations(who, len(rows), len(rows), picks)

    def similar(self, by, vector, k, without=()):
        allowed = np.ones(len(self.dataset.items) + 1, bool)
        allowed[[0, *without]] = False
        return self.vectors.nearest(by, vector, allowed, k)

    def unknown_tags(self, filters):
        return self._rules.unknown(filters)
