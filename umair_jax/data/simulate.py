"""Simulated bookmarks: 1,500 made-up people who look at real drawings for 180 days.

There are no public bookmark logs for drawings, so the built-in data set simulates one. Every place
that shows its results says "simulated". What makes it a fair test bed:

- a person's taste is a mixture of content (tags), style (pixel statistics), artists and popularity,
  so each modality of the ranker has something of its own to find;
- the content taste changes half-way, so that long- and short-term interest differ;
- 70 % of the drawings are published during the 180 days and are shown mostly while they are new, so
  that most drawings of the last days have few impressions in the training split: ids alone fail;
- the true probability of every label and the true mixture of every person are kept beside the data.
  No model input reads them; they give the oracle AUC (the ceiling) and check the modality weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from umair_jax.data.pixel_statistics import catalogue_statistics

MODALITIES = ("content", "style", "artist", "popularity")
_DAY = 86_400
_START = 1_735_689_600  # 2025-01-01 00:00 UTC
_VISITS_AT_ONCE = 64  # bounds the memory for random numbers, and keeps them in the cache


@dataclass(frozen=True)
class SimulationConfig:
    """The recipe. Counts are per catalogue, times in days."""

    users: int = 1_500
    archetypes: int = 24
    tags_per_archetype: int = 12
    artists_per_archetype: int = 8
    mixture: tuple[float, float, float, float] = (0.5, 0.5, 0.3, 0.2)
    days: int = 180
    published_during: float = 0.7
    half_life_days: float = 18.0
    impressions: tuple[int, int] = (80, 240)
    impressions_per_visit: int = 8
    share_by_taste: float = 0.4
    taste_sharpness: float = 1.0
    slope: float = 2.2
    offset: float = -2.6

    def __post_init__(self) -> None:
        """Refuses sizes that cannot make a log."""
        low, high = self.impressions
        if not 0 < low <= high:
            raise ValueError(
                f"impressions: got {self.impressions}, expected 0 < low <= high; "
                "give the fewest and the most impressions a person sees"
            )
        if min(self.users, self.archetypes, self.days, self.impressions_per_visit) < 1:
            raise ValueError(
                "users, archetypes, days and impressions_per_visit must each be at least 1, got "
                f"{self.users}, {self.archetypes}, {self.days}, {self.impressions_per_visit}"
            )


@dataclass(frozen=True)
class Simulation:
    """A simulated log. I impressions in order of time, N drawings, U people.

    Attributes:
        user: int32 [I], 0-based person.
        item: int32 [I], 0-based drawing.
        timestamp: int64 [I], unix seconds.
        label: int8 [I], 1 bookmarked, 0 seen and not bookmarked.
        true_probability: float32 [I], the probability that the label was drawn from.
        published: int64 [N], unix seconds.
        user_mixture: float32 [U, 4], the person's true weights in the order of MODALITIES.
    """

    user: Int[np.ndarray, "I"]
    item: Int[np.ndarray, "I"]
    timestamp: Int[np.ndarray, "I"]
    label: Int[np.ndarray, "I"]
    true_probability: Float[np.ndarray, "I"]
    published: Int[np.ndarray, "N"]
    user_mixture: Float[np.ndarray, "U 4"]


def simulate_bookmarks(
    images: Sequence[bytes],
    tags: Sequence[Sequence[str]],
    artists: Sequence[str],
    seed: int,
    config: SimulationConfig | None = None,
) -> Simulation:
    """Draws a log of impressions and bookmarks over a catalogue, the same for the same seed.

    Args:
        images: N encoded pictures; only their pixel statistics are used.
        tags: the tags of each drawing; none is fine.
        artists: the artist of each drawing.
        seed: every random choice comes from it.
        config: the recipe.

    Returns:
        The log with its ground truth.

    Raises:
        ValueError: the three sequences differ in length, or hold no drawing.
    """
    config = config or SimulationConfig()
    if not len(images) == len(tags) == len(artists) or not len(images):
        raise ValueError(
            f"got {len(images)} images, {len(tags)} tag lists and {len(artists)} artists; "
            "expected one of each for every drawing, and at least one drawing"
        )
    world, people, visits = (np.random.default_rng([seed, part]) for part in range(3))
    popularity = world.normal(size=len(images))  # log of a log-normal appeal
    published = _publication_days(len(images), config, world)
    scores = {
        "content": _content_scores(tags, config, world),
        "style": _style_scores(catalogue_statistics(images), config, world),
        "artist": _artist_scores(artists, config, world),
    }

    mixture = people.dirichlet(config.mixture, size=config.users)
    tastes = {
        name: people.integers(config.archetypes, size=config.users)
        for name in ("early", "late", "style", "artist")
    }
    z = np.stack(
        [
            _standardise(
                mixture[:, :1] * scores["content"][tastes[half]]
                + mixture[:, 1:2] * scores["style"][tastes["style"]]
                + mixture[:, 2:3] * scores["artist"][tastes["artist"]]
                + mixture[:, 3:] * popularity
            )
            for half in ("early", "late")
        ]
    ).astype(np.float32)  # [2, U, N]

    user, item, when = _impressions(z, popularity, published, config, visits)
    half = (when >= config.days / 2).astype(np.int64)
    logit = config.slope * z[half, user, item] + config.offset
    probability = 1.0 / (1.0 + np.exp(-logit))
    label = visits.random(len(user)) < probability
    return Simulation(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        timestamp=_START + np.floor(when * _DAY).astype(np.int64),
        label=label.astype(np.int8),
        true_probability=probability.astype(np.float32),
        published=_START + np.floor(published * _DAY).astype(np.int64),
        user_mixture=mixture.astype(np.float32),
    )


def _standardise(values: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1 along the last axis (the catalogue); constant rows become 0."""
    deviation = values.std(axis=-1, keepdims=True)
    centred = values - values.mean(axis=-1, keepdims=True)
    return centred / np.where(deviation > 0, deviation, 1.0)


def _publication_days(count: int, config: SimulationConfig, rng: np.random.Generator) -> np.ndarray:
    """Days after the start; the rest came out before it, at the same pace."""
    share = config.published_during
    before = config.days * (1.0 - share) / max(share, 1e-9)
    return rng.uniform(-before, config.days, size=count)


def _content_scores(
    tags: Sequence[Sequence[str]], config: SimulationConfig, rng: np.random.Generator
) -> np.ndarray:
    """Idf-weighted overlap with each archetype's 12 tags, the k-th of Zipf weight 1/k. [A, N]."""
    vocabulary = sorted({tag for row in tags for tag in row})
    column = {tag: index for index, tag in enumerate(vocabulary)}
    has = np.zeros((len(tags), len(vocabulary)), np.float64)
    for row, names in enumerate(tags):
        has[row, [column[name] for name in names]] = 1.0
    scores = np.zeros((config.archetypes, len(tags)))
    if not vocabulary:
        return scores
    count = has.sum(axis=0)
    idf = np.log(len(tags) / count)
    liked = min(config.tags_per_archetype, len(vocabulary))
    for archetype in range(config.archetypes):
        chosen = rng.choice(len(vocabulary), size=liked, replace=False, p=count / count.sum())
        scores[archetype] = has[:, chosen] @ (idf[chosen] / np.arange(1, liked + 1))
    return _standardise(scores)


def _style_scores(
    statistics: np.ndarray, config: SimulationConfig, rng: np.random.Generator
) -> np.ndarray:
    """Minus the distance to each archetype, a drawing's place among pixel statistics. [A, N]."""
    points = statistics[rng.choice(len(statistics), size=config.archetypes)]
    distance = np.linalg.norm(statistics[None] - points[:, None], axis=-1)
    return _standardise(-distance)


def _artist_scores(
    artists: Sequence[str], config: SimulationConfig, rng: np.random.Generator
) -> np.ndarray:
    """Whether one of each archetype's 8 artists drew it; prolific artists are likelier. [A, N]."""
    names, index, count = np.unique(
        np.asarray(artists, object).astype(str), return_inverse=True, return_counts=True
    )
    weight = np.sqrt(count) / np.sqrt(count).sum()
    liked = min(config.artists_per_archetype, len(names))
    scores = np.zeros((config.archetypes, len(artists)))
    for archetype in range(config.archetypes):
        chosen = rng.choice(len(names), size=liked, replace=False, p=weight)
        scores[archetype] = np.isin(index, chosen)
    return _standardise(scores)


def _impressions(
    z: np.ndarray,
    popularity: np.ndarray,
    published: np.ndarray,
    config: SimulationConfig,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who saw which drawing when: visits of a few drawings, never the same one twice."""
    low, high = config.impressions
    wanted = rng.integers(low, high + 1, size=config.users)
    visits = -(-wanted // config.impressions_per_visit)
    person = np.repeat(np.arange(config.users), visits)
    start = rng.uniform(0.0, config.days, size=len(person))
    order = np.argsort(start, kind="stable")
    person, start = person[order], start[order]

    # Who is offered how much is known beforehand: only what is chosen depends on earlier visits.
    alive = np.searchsorted(np.sort(published), start, side="right")
    size, pool = _plan(person, alive, wanted, config.impressions_per_visit)
    person, start, size, pool = (x[size > 0] for x in (person, start, size, pool))
    randomness = _randomness(size, pool, rng)
    sharpness, half_life = config.taste_sharpness, config.half_life_days

    seen = np.zeros((config.users, len(published)), bool)
    users, items, times = [], [], []
    plan = zip(person.tolist(), start.tolist(), size.tolist(), randomness, strict=True)
    for who, when, count, (uniform, noise) in plan:
        age = when - published
        live = np.flatnonzero((age >= 0) & ~seen[who])
        decay = -np.log(2.0) * age[live] / half_life
        taste = sharpness * z[int(when >= config.days / 2), who, live]
        first = _best(popularity[live] + decay + noise[0], 2 * count)
        second = _best(taste + decay + noise[1], 2 * count)
        chosen = live[_interleave(first, second, uniform < config.share_by_taste)]
        seen[who, chosen] = True
        users.append(np.full(count, who))
        items.append(chosen)
        times.append(when + np.arange(count) * 20.0 / _DAY)
    return _in_order_of_time(users, items, times)


def _plan(
    person: np.ndarray, alive: np.ndarray, wanted: np.ndarray, per_visit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Impressions of each visit (0 where nothing is new), and the drawings it chooses from."""
    left, shown = wanted.tolist(), [0] * len(wanted)
    sizes, pools = [], []
    for who, published in zip(person.tolist(), alive.tolist(), strict=True):
        pool = published - shown[who]
        size = min(per_visit, left[who], pool)
        left[who] -= size
        shown[who] += size
        sizes.append(size)
        pools.append(pool)
    return np.array(sizes, np.int64), np.array(pools, np.int64)


def _randomness(
    size: np.ndarray, pool: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Per visit, uniform numbers [size] and Gumbel noise [2, pool]; drawn for many visits at once.

    The largest sums of log weight and Gumbel noise are a weighted draw without replacement.
    """
    for begin in range(0, len(size), _VISITS_AT_ONCE):
        visits = slice(begin, begin + _VISITS_AT_ONCE)
        ends = np.cumsum(size[visits] + 2 * pool[visits])
        uniform = rng.random(ends[-1])
        with np.errstate(divide="ignore"):
            noise = -np.log(-np.log(1.0 - uniform))
        for end, count, live in zip(ends, size[visits], pool[visits], strict=True):
            middle = end - 2 * live
            yield uniform[middle - count : middle], noise[middle:end].reshape(2, live)


def _best(keys: np.ndarray, count: int) -> np.ndarray:
    """Indices of the largest keys, best first. Twice a visit's size is enough for two rankings."""
    if count < len(keys):
        top = np.argpartition(keys, -count)[-count:]
        return top[np.argsort(-keys[top])]
    return np.argsort(-keys)


def _interleave(first: np.ndarray, second: np.ndarray, use_second: np.ndarray) -> np.ndarray:
    """Takes the next unused entry of one ranking or the other, in the order of `use_second`."""
    rankings = (iter(first.tolist()), iter(second.tolist()))
    chosen: dict[int, None] = {}
    for pick in use_second:
        entry = next(entry for entry in rankings[int(pick)] if entry not in chosen)
        chosen[entry] = None
    return np.array(list(chosen), np.int64)


def _in_order_of_time(
    users: list[np.ndarray], items: list[np.ndarray], times: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    user, item, when = np.concatenate(users), np.concatenate(items), np.concatenate(times)
    order = np.lexsort((item, user, when))
    return user[order], item[order], when[order]
