"""Films: the main job on the ratings of real people, MovieLens's.

    python -m umair_jax.train --config=configs/movielens.py --config.data.path=FILMS

holds out films: every fifth is seen in no training example, by nobody.

    python -m umair_jax.train --config=configs/movielens.py:temporal --config.data.path=FILMS
    python -m umair_jax.train --config=configs/movielens.py:cold_user --config.data.path=FILMS

hold out the last tenth of the log, and every fifth person. FILMS is a folder with items.parquet and
ratings.parquet; docs/data.md says how to make it. Made for two CPU cores, like base.py.
"""

from ml_collections import ConfigDict

from configs import base

# Shares of train, valid and test: of films, of interactions, of people.
FRACTIONS = {
    "cold_item": (0.7, 0.1, 0.2),
    "temporal": (0.8, 0.1, 0.1),
    "cold_user": (0.7, 0.1, 0.2),
}


def get_config(arg: str = "") -> ConfigDict:
    """base.py on films.

    Args:
        arg: What is held out, see data/splits.py: cold_item (as without any), temporal or
            cold_user.
    """
    split = arg or "cold_item"
    if split not in FRACTIONS:
        raise ValueError(
            f"configs/movielens.py: got the split {split!r}; expected one of {', '.join(FRACTIONS)}"
        )
    config = base.get_config()
    with config.unlocked():
        config.data.source = "movielens"
        config.data.path = "movielens"
        # 9,724 films, some 1,500 directors, 19 genres (2,400 tags with untimed_tags), 610 people.
        config.schema.sizes = {
            "illust_id": 65_536,
            "artist_id": 16_384,
            "item_tag": 8_000,
            "user_tag": 8_000,
            "user_id": 8_192,
        }
        # A film has 14 earlier ratings when it is rated, the median; at most 328.
        counts = (1, 2, 4, 8, 16, 32, 64, 128, 256)
        config.schema.boundaries = {"total_view": counts, "total_bookmarks": counts}
        # Negatives are drawn in proportion to earlier ratings, whose counts thus say nothing, but
        # for 0: a tenth of the positives are a film's first rating, and hardly any negative has
        # none before it. That is the sampling, not people. The rest is what films do not have.
        config.schema.bookmark_rate = ()
        config.schema.categories = 64  # a film's is its decade
        config.schema.drop = (
            *("total_view", "total_bookmarks"),
            *("restrict", "sanity_level", "x_restrict", "width", "height", "username"),
        )
        if split == "cold_item":
            # On the validation films most models do better without the training films' ids.
            config.schema.drop += ("illust_id",)
        config.features.split = split
        config.features.fractions = FRACTIONS[split]
        # Genres, title and the beginning of the plot: the built-in encoder reads 64 tokens.
        config.extract.text_fields = ("tags", "title", "description")
        config.extract.max_tokens = 64
        # Products of all pairs of fields, the projected vectors among them; see docs/results.md.
        config.model.fm = "vectors"
        # Found on the validation films: twice base.py's rate for tables, fewer epochs.
        config.tables.learning_rate = 0.2
        config.train.epochs = 4.0
    return config
