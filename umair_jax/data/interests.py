"""What was known before an interaction: the user's bookmarks, interest tags, counts of the item.

The one rule of this file: an interaction at time t sees bookmarks with a timestamp strictly below
t. Its own label, the rest of the same second and everything later cannot change its features.

Histories are pointer ranges into one array of bookmarks sorted by user and time, so that millions
of interactions cost a few sorts and no Python loop. Interactions with the same ranges share a
*state*: an active user has one state per bookmark, not one per impression.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int32, Int64, Num

from umair_jax.data.dataset import Interactions
from umair_jax.data.earlier import Clock, count_below, first_of
from umair_jax.data.splits import KINDS, TRAIN

TAGS_PER_WINDOW = 4
_DAY = 86_400
# Bounds of the working memory: states and table entries handled at a time.
_STATES_AT_ONCE, _ENTRIES_AT_ONCE = 16_384, 4_000_000


@dataclasses.dataclass(frozen=True)
class Histories:
    """Bookmarks before every interaction, as ranges.

    Attributes:
        positives_item: Item rows of the bookmarks, sorted by (user, time, item).
        positives_time: Their unix seconds.
        start: Per interaction, the user's first bookmark.
        end: Per interaction, one past the user's last earlier bookmark.
        state: Per interaction, its state.
        state_user: Per state, the user row. States are sorted by user and time.
        state_end: Per state, the end of both windows.
        long_start: Per state, where the long window begins.
        short_start: Per state, where the short window begins.
    """

    positives_item: Int32[np.ndarray, " P"]
    positives_time: Int64[np.ndarray, " P"]
    start: Int64[np.ndarray, " I"]
    end: Int64[np.ndarray, " I"]
    state: Int32[np.ndarray, " I"]
    state_user: Int32[np.ndarray, " S"]
    state_end: Int64[np.ndarray, " S"]
    long_start: Int64[np.ndarray, " S"]
    short_start: Int64[np.ndarray, " S"]

    def at(self, states: Int32[np.ndarray, " R"]) -> Histories:
        """The same with the states of some interactions alone, one for each, in their order."""
        names = ("state_user", "state_end", "long_start", "short_start")
        return dataclasses.replace(self, **{name: getattr(self, name)[states] for name in names})


def build_histories(
    interactions: Interactions,
    split: Int8[np.ndarray, " I"] | None = None,
    kind: str = "temporal",
    *,
    long_max: int = 50,
    short_max: int = 8,
    long_days: float | int | None = None,
    short_days: float | int | None = None,
) -> Histories:
    """Finds the bookmarks that each interaction may know of.

    Args:
        interactions: The log.
        split: Its splits; needed for cold_item.
        kind: Kind of the split. With cold_item, only bookmarks of training items enter any
            history, so that nothing about a held-out item reaches a training row. In the other
            kinds the user's whole earlier log counts: a user's training rows all precede the
            user's held-out rows, or none of them is held out.
        long_max: The long window holds at most this many bookmarks, the most recent ones.
        short_max: Likewise for the short window.
        long_days: The long window goes back at most this many days; None = any time.
        short_days: Likewise for the short window.

    Returns:
        The ranges; windows may be empty.

    Raises:
        ValueError: An unknown kind, a missing split, or a window below 1.
    """
    if kind not in KINDS:
        raise ValueError(f"got the split {kind!r}; expected one of {', '.join(KINDS)}")
    if kind == "cold_item" and split is None:
        raise ValueError("got no split; expected the cold_item split, to hide the held-out items")
    for name, size in {"long_max": long_max, "short_max": short_max}.items():
        if size < 1:
            raise ValueError(f"got {name} {size}; expected 1 or more")
    known = interactions.label == 1
    if kind == "cold_item" and split is not None:
        known &= split == TRAIN
    user, time = interactions.user.astype(np.int64), interactions.timestamp
    positives = np.flatnonzero(known)
    positives = positives[
        np.lexsort((interactions.item[positives], time[positives], user[positives]))
    ]
    clock = Clock.of(user, time)
    key = clock.key(user, time)
    sorted_key = key[positives]

    end = count_below(sorted_key, key)
    start = first_of(user[positives], user)
    # One state per (user, end), unless a window in days moves between two bookmarks.
    first, state = _unique(user * (len(positives) + 1) + end)
    reach = np.stack([end - long_max, end - short_max])
    reach = np.maximum(reach, start)
    for window, days in enumerate((long_days, short_days)):
        if days is not None:
            back = clock.key(user, time, back=round(days * _DAY))
            reach[window] = np.maximum(reach[window], count_below(sorted_key, back))
            first, state = _unique(state * (len(positives) + 1) + (end - reach[window]))
    return Histories(
        positives_item=interactions.item[positives],
        positives_time=time[positives],
        start=start,
        end=end,
        state=state.astype(np.int32),
        state_user=interactions.user[first],
        state_end=end[first],
        long_start=reach[0, first],
        short_start=reach[1, first],
    )


def latest_bookmarks(histories: Histories, count: int) -> Int32[np.ndarray, "S L"]:
    """Item rows of the latest `count` bookmarks of every state's long window.

    The latest comes first; 0 where the window holds fewer.
    """
    place = histories.state_end[:, None] - 1 - np.arange(count)
    there = place >= histories.long_start[:, None]
    if not len(histories.positives_item):
        return np.zeros(there.shape, np.int32)
    return np.where(there, histories.positives_item[np.where(there, place, 0)], np.int32(0))


def _unique(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First position of every distinct key, in ascending order, and the number of each key."""
    _, first, number = np.unique(keys, return_index=True, return_inverse=True)
    return first, number.reshape(-1).astype(np.int64)


# Interest tags ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class TagVocabulary:
    """All tags of a catalogue, the most frequent first.

    Attributes:
        tags: Texts; entry 0 is a placeholder.
        item_tags: Tag rows of every item in the item's order, padded with 0; [N+1, T].
    """

    tags: tuple[str, ...]
    item_tags: Int32[np.ndarray, "N1 T"]


def tag_vocabulary(tags: Sequence[Sequence[str]]) -> TagVocabulary:
    """Numbers the tags of a catalogue by falling frequency, ties in the order of the text.

    Args:
        tags: The tags of every item; entry 0 is a placeholder.
    """
    count = Counter(tag for row in tags for tag in row)
    order = sorted(count, key=lambda tag: (-count[tag], tag))
    number = {tag: k for k, tag in enumerate(order, 1)}
    item_tags = np.zeros((len(tags), max(1, *map(len, tags))), np.int32)
    for row, names in enumerate(tags):
        item_tags[row, : len(names)] = [number[name] for name in names]
    return TagVocabulary(("", *order), item_tags)


def interest_tags(
    histories: Histories, item_tags: Int32[np.ndarray, "N1 T"]
) -> Int32[np.ndarray, "S 8"]:
    """The most frequent tags of each window.

    Args:
        histories: The windows.
        item_tags: Tag rows of every item, 0 = none.

    Returns:
        Per state four tag rows of the long window, then four of the short one, most frequent
        first; between equally frequent tags the more recently bookmarked comes first, and
        between tags of the same bookmark the one that the item lists first. 0 = none.
    """
    # One flat list of the tags of all bookmarks: a window is a range of it. An item's tags are
    # reversed, so that the distance from the end of the range orders by recency, then position.
    rows = item_tags[histories.positives_item][:, ::-1]
    flat = rows[rows > 0]
    offset = np.concatenate([[0], np.cumsum((rows > 0).sum(axis=1))])
    ends = offset[histories.state_end]
    windows = [
        _frequent(flat, offset[begin], ends)
        for begin in (histories.long_start, histories.short_start)
    ]
    return np.concatenate(windows, axis=1)


def _frequent(flat: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The four most frequent values of the ranges flat[starts:ends], [S, 4]."""
    result = np.zeros((len(starts), TAGS_PER_WINDOW), np.int32)
    length = ends - starts
    order = np.argsort(length, kind="stable")  # ranges of like length together: little padding
    order = order[np.searchsorted(length[order], 1) :]
    while len(order):
        # The longest of the next chunk decides how many fit into the working memory.
        size = min(len(order), _STATES_AT_ONCE)
        size = max(1, min(size, _ENTRIES_AT_ONCE // int(length[order[size - 1]])))
        chunk, order = order[:size], order[size:]
        width = int(length[chunk[-1]])
        distance = np.arange(width)
        inside = distance < length[chunk, None]
        position = np.where(inside, ends[chunk, None] - 1 - distance, 0)
        tag = np.where(inside, flat[position], 0).astype(np.int64)
        result[chunk] = _top(tag * width + distance, width)
    return result


def _top(keys: np.ndarray, width: int) -> np.ndarray:
    """From keys tag * width + distance, [C, width], the four best tags per row."""
    if keys.max() < 2**31:
        keys = keys.astype(np.int32)  # sorts twice as fast
    keys = np.sort(keys, axis=1)
    tag = keys // width
    begins = np.ones(keys.shape, bool)
    begins[:, 1:] = tag[:, 1:] != tag[:, :-1]
    runs = np.flatnonzero(begins)
    count = np.diff(runs, append=keys.size)
    distance = (keys - tag * width).reshape(-1)[runs]  # of the most recent one in the run
    score = np.zeros(keys.size, np.int64)
    score[runs] = np.where(tag.reshape(-1)[runs] > 0, count * width + width - 1 - distance, -1) + 1
    score = score.reshape(keys.shape)
    best = np.zeros((len(keys), TAGS_PER_WINDOW), np.int32)
    each = np.arange(len(keys))
    for k in range(TAGS_PER_WINDOW):
        at = score.argmax(axis=1)
        best[:, k] = np.where(score[each, at] > 0, tag[each, at], 0)
        score[each, at] = 0
    return best


# Interest vectors and popularity ------------------------------------------------------------


def interest_vectors(
    histories: Histories,
    vectors: Float32[np.ndarray, "N1 D"],
    present: Bool[np.ndarray, " N1"] | None = None,
) -> tuple[Float32[np.ndarray, "S D"], Float32[np.ndarray, "S D"]]:
    """Mean vectors of the bookmarks in each window.

    Args:
        histories: The windows.
        vectors: One vector per item.
        present: Which items have a vector; by default those that are not all zeros. The others
            do not count.

    Returns:
        Means over the long and over the short window, per state; zeros for an empty one.
    """
    weight = np.asarray(vectors.any(axis=1) if present is None else present, np.float64)
    counted = np.concatenate([[0.0], np.cumsum(weight[histories.positives_item])])
    shape = (len(histories.state_end), vectors.shape[1])
    long, short = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    # States are sorted by user and time: a run of them spans a short stretch of the bookmarks,
    # which keeps the cumulative sums small and exact.
    at_once = max(1, min(_STATES_AT_ONCE, _ENTRIES_AT_ONCE // max(1, shape[1])))
    for begin in range(0, shape[0], at_once):
        chunk = slice(begin, begin + at_once)
        ends = histories.state_end[chunk]
        low = int(histories.long_start[chunk].min())
        low = min(low, int(histories.short_start[chunk].min()))
        rows = histories.positives_item[low : int(ends.max())]
        sums = np.zeros((len(rows) + 1, shape[1]))
        np.cumsum(vectors[rows] * weight[rows, None], axis=0, out=sums[1:])
        for out, window in ((long, histories.long_start), (short, histories.short_start)):
            starts = window[chunk]
            number = counted[ends] - counted[starts]
            total = sums[ends - low] - sums[starts - low]
            out[chunk] = total / np.maximum(number, 1.0)[:, None]
            out[chunk][number == 0] = 0.0
    return long, short


def popularity_as_of(
    interactions: Interactions,
    base: tuple[Num[np.ndarray, " N1"], Num[np.ndarray, " N1"]] | None = None,
    split: Int8[np.ndarray, " I"] | None = None,
    kind: str = "temporal",
) -> tuple[Int32[np.ndarray, " I"], Int32[np.ndarray, " I"]]:
    """Views and bookmarks of each interaction's item, strictly before its second.

    Args:
        interactions: The log. Sampled negatives are not views.
        base: Views and bookmarks of every item from before the log; negative = 0. Give no count
            that was taken later: it would tell the future.
        split: Splits of the log; needed for all kinds but temporal.
        kind: Kind of the split. In the temporal one the whole earlier log counts. In the others
            training and held-out rows lie at the same times, and only training rows count.

    Returns:
        Views and bookmarks as of each interaction.

    Raises:
        ValueError: An unknown kind, or a missing split.
    """
    if kind not in KINDS:
        raise ValueError(f"got the split {kind!r}; expected one of {', '.join(KINDS)}")
    item = interactions.item.astype(np.int64)
    seen = np.ones(len(item), bool)
    if interactions.sampled is not None:
        seen &= ~interactions.sampled
    if kind != "temporal":
        if split is None:
            raise ValueError(f"got no split; expected the {kind} split, to hide held-out rows")
        seen &= split == TRAIN
    rows = np.flatnonzero(seen)
    key = Clock.of(item, interactions.timestamp).key(item, interactions.timestamp)
    rows = rows[np.argsort(key[rows], kind="stable")]
    before = count_below(key[rows], key)
    first = first_of(item[rows], item)
    bookmarks = np.concatenate([[0], np.cumsum(interactions.label[rows] == 1)])
    views, marks = before - first, bookmarks[before] - bookmarks[first]
    if base is not None:
        views = views + np.maximum(base[0], 0).astype(np.int64)[item]
        marks = marks + np.maximum(base[1], 0).astype(np.int64)[item]
    limit = np.iinfo(np.int32).max
    return np.minimum(views, limit).astype(np.int32), np.minimum(marks, limit).astype(np.int32)
