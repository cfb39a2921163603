import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from umair_jax.data import hashing
from umair_jax.data.collisions import collisions, show, summary
from umair_jax.data.schema import Field, Kind, Schema, Side

ITEM_ORDER = [
    "restrict",
    "sanity_level",
    "x_restrict",
    "tag_0",
    "tag_1",
    "tag_2",
    "tag_3",
    "total_bookmarks",
    "total_view",
    "width",
    "height",
    "illust_id",
    "artist_id",
]
USER_ORDER = [
    "user_id",
    "username",
    "long_term_interest_tag_0",
    "long_term_interest_tag_1",
    "long_term_interest_tag_2",
    "long_term_interest_tag_3",
    "short_term_interest_tag_0",
    "short_term_interest_tag_1",
    "short_term_interest_tag_2",
    "short_term_interest_tag_3",
]


def items():
    n = lambda *values: np.array([-1, *values], np.int64)  # noqa: E731
    return SimpleNamespace(
        illust_id=("", "7", "8", "9"),
        artist=("", "ann", "", "ann"),
        tags=((), ("cat", "sea"), (), ("sea", "a", "b", "c", "d")),
        restrict=n(0, 2, 3),
        sanity_level=n(9, 10, -1),
        x_restrict=n(0, 0, 1),
        total_view=n(0, 100, 99),
        total_bookmarks=n(0, 0, 10_001),
        width=n(399, 400, 5000),
        height=n(1, -1, 1600),
        title=("",) * 4,
        description=("",) * 4,
        category=("",) * 4,
        published=n(0, 0, 0),
    )


USERS = SimpleNamespace(user_id=("", "u1", "u2"), username=("", "Ann", ""))


def test_paper_fields_orders_and_sizes():
    schema = Schema.paper()
    assert [f.name for f in schema.sparse(Side.ITEM)] == ITEM_ORDER
    assert [f.name for f in schema.sparse(Side.USER)] == USER_ORDER
    assert {f.name: f.width for f in schema.dense()} == {
        "img_semantics": 1024,
        "img_styles": 256,
        "tag_semantics": 512,
        "long_term_interest_tags_feature": 512,
        "short_term_interest_tags_feature": 512,
    }
    assert schema.field("total_view").size == 10
    assert schema.field("width").size == 4
    assert {schema.field(n).table for n in ITEM_ORDER[3:7]} == {"item_tag"}
    assert {schema.field(n).table for n in USER_ORDER[2:]} == {"user_tag"}
    embedding, wide = schema.embedding_layout(), schema.wide_layout()
    assert embedding.used == 1 + 1_127_044  # x 8 = the paper's 9.0 M embedding parameters
    assert wide.used == 1 + 1_127_044 + 3 * 8_000 + 7 * 8_000  # its 1.2 M wide parameters
    assert embedding.rows % 1024 == wide.rows % 1024 == 0
    assert next(iter(embedding.offsets.values())) == 1


def test_encode_by_kind():
    schema = Schema.paper()
    assert schema.encode("restrict", [0, 2, 3, -1]).tolist() == [0, 2, -1, -1]
    width = schema.encode("width", np.array([0, 399, 400, 799.5, 1600, 1e9, -1, np.nan]))
    assert width.tolist() == [0, 0, 1, 1, 3, 3, -1, -1]
    artist = schema.encode("artist_id", ["ann", "", "bob"])
    assert artist.tolist() == [
        hashing.bucket("ann", 10_000),
        -1,
        hashing.bucket("bob", 10_000),
    ]
    assert schema.encode("illust_id", np.array([5, 6])).tolist() == [
        hashing.bucket("5", 1_000_000),
        hashing.bucket("6", 1_000_000),
    ]
    with pytest.raises(ValueError, match="expected numbers"):
        schema.encode("width", ["a"])
    with pytest.raises(ValueError, match="dense"):
        schema.encode("img_styles", [1])


def test_item_rows_stay_in_their_blocks():
    schema, table = Schema.paper(), items()
    embedding, wide = schema.item_rows(table)
    assert embedding.shape == wide.shape == (4, 13)
    assert embedding.dtype == wide.dtype == np.int32
    assert not embedding[0].any()
    assert not wide[0].any()
    for f, name in enumerate(ITEM_ORDER):
        field = schema.field(name)
        local = schema.encode(name, schema.values(name, table))
        first_e = schema.embedding_layout().offsets[field.table]
        first_w = schema.wide_layout().offsets[name]
        for row in range(1, 4):
            expected = (0, 0) if local[row] < 0 else (first_e + local[row], first_w + local[row])
            assert (embedding[row, f], wide[row, f]) == expected
    # "sea" stands at two positions: one embedding row, two wide rows.
    assert embedding[1, 4] == embedding[3, 3]
    assert wide[1, 4] != wide[3, 3]


def test_rows_of_a_subset_follow_the_schema():
    schema, table = Schema.paper(), items()
    every = schema.item_rows(table)
    some = schema.item_rows(table, fields=("illust_id", "tag_1"))
    for whole, part in zip(every, some, strict=True):
        np.testing.assert_array_equal(part, whole[:, [4, 11]])
    assert schema.user_rows(USERS)[0].shape == (3, 2)
    assert schema.user_rows(USERS)[0][2, 1] == 0
    with pytest.raises(ValueError, match="did you mean 'tag_0'"):
        schema.item_rows(table, fields=["tag_00"])
    with pytest.raises(ValueError, match="expected a sparse item field"):
        schema.item_rows(table, fields=["user_id"])


def test_tag_rows_share_one_table_and_eight_wide_blocks():
    schema = Schema.paper()
    embedding, wide = schema.tag_rows(("", "cat", "sea"))
    assert embedding.shape == wide.shape == (3, 8)
    assert not embedding[0].any()
    assert (embedding[1:] == embedding[1:, :1]).all()
    assert len(set(wide[1])) == 8
    local = schema.encode(USER_ORDER[2], ["sea"])
    assert embedding[2, 0] == schema.embedding_rows(USER_ORDER[2], local)[0]


def test_replace_and_without_and_add():
    schema = Schema.paper()
    assert schema.replace(illust_id={"size": 4096}).field("illust_id").size == 4096
    shared = schema.replace(tag_0={"size": 500})
    assert {shared.field(f"tag_{k}").size for k in range(4)} == {500}
    assert shared.field(USER_ORDER[2]).size == 8_000
    assert schema.replace(user_tag={"size": 64}).field(USER_ORDER[9]).size == 64
    views = schema.replace(total_view={"boundaries": (1, 2)}).field("total_view")
    assert views.size == 3
    small = schema.without("tag_0", "username")
    assert next(f.name for f in small.sparse(Side.USER)) == "user_id"
    assert "tag_0" not in small.wide_layout().offsets
    age = Field("history", Kind.BUCKET, Side.USER, boundaries=(1, 5, 20))
    wider = schema.add(age)
    assert wider.encode("history", [0, 5, 100]).tolist() == [0, 2, 3]
    assert wider.user_rows(USERS)[0].shape == (3, 2)  # it has no column: made per interaction
    with pytest.raises(ValueError, match="did you mean"):
        schema.replace(illust_idd={"size": 4})
    with pytest.raises(ValueError, match="twice"):
        wider.add(age)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": Kind.HASH}, "size 0"),
        ({"kind": Kind.BUCKET}, "strictly ascending"),
        ({"kind": Kind.BUCKET, "boundaries": (2, 1)}, "strictly ascending"),
        ({"kind": Kind.BUCKET, "boundaries": (1, 2), "size": 2}, "one more than"),
        ({"kind": Kind.CATEGORY, "size": 3, "boundaries": (1,)}, "expected none"),
        ({"kind": Kind.DENSE, "size": 3}, "a dense field"),
        ({"kind": Kind.HASH, "size": 3, "width": 4}, "embedding width"),
    ],
)
def test_a_wrong_field_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Field("x", side=Side.ITEM, **arguments)


def test_a_shared_table_has_one_size():
    field = Field("a", Kind.HASH, Side.ITEM, "t", 10)
    with pytest.raises(ValueError, match="share the table 't'"):
        Schema((field, Field("b", Kind.HASH, Side.ITEM, "t", 20)))


def test_collisions_are_counted():
    schema = Schema.paper().replace(illust_id={"size": 2}, user_id={"size": 100_000})
    found = {entry.table: entry for entry in collisions(schema, items(), USERS)}
    assert found["illust_id"].distinct == 3
    assert found["illust_id"].colliding in (2, 3)
    assert found["user_id"].colliding == 0
    assert found["item_tag"].distinct == 5  # the fifth tag of an item has no position
    assert found["user_tag"].distinct == 6
    assert found["artist_id"].share == 0.0
    out = io.StringIO()
    show(summary(schema, items(), USERS), Console(file=out, width=120))
    (line,) = [line for line in out.getvalue().splitlines() if " illust_id " in line]
    colliding = found["illust_id"].colliding
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells[1:6] == ["1", "2", "3", str(colliding), f"{colliding / 3:.1%}"]
