"""Lists for people: what the ranker says, as of now, for anybody."""

import dataclasses
import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import small_run
import small_world
from absl import flags
from folders import picture
from PIL import Image
from rich.console import Console

from umair_jax import recommend, settings
from umair_jax.data import feature_bank
from umair_jax.data.batches import BatchSource
from umair_jax.recommending import everyone, person, sheet
from umair_jax.recommending.choice import ChoiceConfig
from umair_jax.recommending.filters import Filters
from umair_jax.recommending.recommender import Recommender, Request
from umair_jax.training import record


@pytest.fixture(scope="module")
def run(compiled_once):
    return small_run.loaded()


@pytest.fixture(scope="module")
def ready(run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_bank, "load", lambda _: small_world.bank())
        return Recommender(run)


def quiet():
    return Console(file=io.StringIO(), width=200)


def of(ready, user):
    return person.of_row(ready.dataset, user, ready.moment)


def test_scores_are_those_of_an_example_at_the_end_of_the_log(run, ready):
    """One more interaction of the log, a second after its end, is predicted the same."""
    world = run.job.dataset
    log = world.interactions
    user, items = 3, np.array([2, 7, 11], np.int32)
    extended = dataclasses.replace(
        log,
        user=np.append(log.user, np.full(3, user, np.int32)),
        item=np.append(log.item, items),
        timestamp=np.append(log.timestamp, np.full(3, ready.moment)),
        label=np.append(log.label, np.zeros(3, np.int8)),
        true_probability=None,
        sampled=np.append(log.sampled, np.ones(3, bool)),
    )
    later = small_world.build(dataclasses.replace(world, interactions=extended))
    source = BatchSource(later.columns, 64, shuffle=False, index=np.arange(len(log), len(log) + 3))
    expected = run.predictor(run.state, later.context, source)
    (found,) = ready._scorer([of(ready, user)], [items])
    np.testing.assert_allclose(found.probability, expected["probability"], rtol=1e-5)
    np.testing.assert_allclose(found.weights, expected["weights"], rtol=1e-5)


def test_a_ranker_without_sides_scores_pair_by_pair(ready, monkeypatch):
    people = [of(ready, 2), person.of_rows(np.array([4, 1], np.int32), ready.moment)]
    items = [np.array([3, 5]), np.arange(1, small_world.ITEMS + 1)]
    in_two = ready._scorer(people, items)
    monkeypatch.setattr(ready._scorer, "_sides", None)
    for one, other in zip(ready._scorer(people, items), in_two, strict=True):
        np.testing.assert_array_equal(one.item, other.item)
        np.testing.assert_allclose(one.probability, other.probability, rtol=1e-5)
        np.testing.assert_allclose(one.weights, other.weights, rtol=1e-5)


def test_everybody_gets_what_he_gets_alone(ready):
    people = [of(ready, user) for user in range(1, small_world.USERS + 1)]
    people.append(person.of_rows(np.array([4, 1], np.int32), ready.moment))
    people.append(person.of_rows(np.zeros(0, np.int32), ready.moment))
    together = ready.recommend_all(people, Request())
    for who, found in zip(people, together, strict=True):
        alone = ready.recommend(who, Request())
        assert [p.item for p in alone.picks] == [p.item for p in found.picks]
        np.testing.assert_allclose(
            [p.probability for p in alone.picks], [p.probability for p in found.picks], rtol=1e-5
        )
        assert not {p.item for p in found.picks} & set(who.liked.tolist())
        assert found.ranked == found.allowed == small_world.ITEMS - len(set(who.liked.tolist()))
        for pick in found.picks:
            assert sum(pick.weights) == pytest.approx(1, abs=1e-5)
            assert pick.because is None or pick.because.liked in who.liked


def test_somebody_new_is_not_the_user_whose_bookmarks_he_shares(ready):
    known = of(ready, 2)
    new = dataclasses.replace(known, user=0)
    both = ready.recommend_all([known, new], Request(ChoiceConfig(50)))
    first, second = ({p.item: p.probability for p in found.picks} for found in both)
    assert set(first) == set(second)
    assert first != second


def test_the_retriever_decides_what_is_ranked(run, monkeypatch):
    monkeypatch.setattr(feature_bank, "load", lambda _: small_world.bank())

    class Odd:
        catalogue = run.job.dataset.catalogue_fingerprint

        def candidates(self, people, allowed, count):
            assert count == 4
            return [np.flatnonzero(rows)[::2][:count] for rows in allowed]

    found = Recommender(run, Odd()).recommend(
        person.of_rows(np.array([3], np.int32), 10**6), Request(candidates=4)
    )
    assert {pick.item for pick in found.picks} == {1, 4, 6, 8}
    assert (found.allowed, found.ranked) == (small_world.ITEMS - 1, 4)


def test_the_balance_moves_a_list_towards_style_or_content(ready):
    who = of(ready, 1)

    def lean(balance):
        request = Request(ChoiceConfig(5), Filters(bookmarked=True), balance=balance)
        items = [pick.item for pick in ready.recommend(who, request).picks]
        style, content = (ready.vectors.taste(v, who.liked)[items] for v in ("style", "content"))
        return (style - content).mean()

    assert lean(-1.0) < lean(0.0) < lean(1.0)


def test_nothing_to_rank_is_an_empty_list(ready):
    nothing = Filters(max_sanity_level=0, block_tags=tuple(f"tag {k}" for k in range(9)))
    everything = np.arange(1, small_world.ITEMS + 1, dtype=np.int32)
    found = ready.recommend(person.of_rows(everything, ready.moment), Request(filters=nothing))
    assert (found.allowed, found.ranked, found.picks) == (0, 0, ())
    assert sheet.draw(found, ready.dataset, ready.modalities).size[0] > 0


def test_a_retriever_of_another_catalogue_is_refused(run):
    class Other:
        catalogue = "other"

        def candidates(self, people, allowed, count):
            raise AssertionError

    with pytest.raises(ValueError, match="retrieval: got a run over another catalogue"):
        Recommender(run, Other())


@pytest.mark.parametrize("wrong", [{"candidates": 0}, {"balance": -1.5}])
def test_requests_out_of_range_are_errors(wrong):
    with pytest.raises(ValueError, match="expected 1 or more candidates and a balance of -1 to 1"):
        Request(**wrong)


# Everybody --------------------------------------------------------------------------------------


def read(folder):
    return pq.read_table(sorted(folder.glob("part-*.parquet"))).to_pylist()


def test_lists_for_everybody_go_on_where_they_were(ready, tmp_path, monkeypatch):
    monkeypatch.setattr(everyone, "_PAIRS", 3 * small_world.ITEMS)
    request, key = Request(ChoiceConfig(4)), {"workdir": "one"}
    manifest = everyone.write(ready, request, tmp_path, key, quiet())
    rows = read(tmp_path)
    assert manifest["users"] == small_world.USERS
    assert manifest["parts"] == 3
    assert manifest["rows"] == len(rows)
    for user in range(1, small_world.USERS + 1):
        mine = [row for row in rows if row["user_id"] == f"u{user}"]
        alone = ready.recommend(of(ready, user), request)
        ids = [ready.dataset.items.illust_id[pick.item] for pick in alone.picks]
        assert [row["illust_id"] for row in mine] == ids
        assert [row["rank"] for row in mine] == list(range(1, len(mine) + 1))
        assert {f"weight_{name}" for name in ready.modalities} <= set(mine[0])

    (tmp_path / "part-00001.parquet").unlink()
    asked = []
    real = ready.recommend_all
    monkeypatch.setattr(
        ready, "recommend_all", lambda people, r: asked.append(len(people)) or real(people, r)
    )
    everyone.write(ready, request, tmp_path, key, quiet())
    assert asked == [3]
    assert read(tmp_path) == rows
    with pytest.raises(ValueError, match=r"got lists of another request \(workdir differ\)"):
        everyone.write(ready, request, tmp_path, {"workdir": "two"}, quiet())
    with pytest.raises(ValueError, match=r"\(request differ\); expected an empty folder"):
        everyone.write(ready, Request(), tmp_path, key, quiet())


# The front door ---------------------------------------------------------------------------------


@pytest.fixture
def door(run, ready, tmp_path, monkeypatch):
    """Calls the front door with flags; its printed words."""
    monkeypatch.setattr(recommend.recommender, "load", lambda *_: ready)
    console = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr(recommend, "Console", lambda: console)
    record.write_config(tmp_path, settings.as_json(run.job.config))

    def call(*arguments):
        values = flags.FlagValues()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recommend.flags, "FLAGS", values)
            for kind in ("string", "integer", "float", "bool", "list"):
                define = getattr(flags, f"DEFINE_{kind}")
                patch.setattr(
                    recommend.flags,
                    f"DEFINE_{kind}",
                    lambda *a, define=define, **k: define(*a, flag_values=values, **k),
                )
            recommend.define_flags()
            values(["recommend", f"--workdir={tmp_path}", *arguments])
            recommend.main([])
        return console.file.getvalue()

    return call


def test_a_user_gets_a_table_a_file_and_a_picture(door, ready, tmp_path):
    said = door("--user=u2", "--k=3")
    answer = json.loads((tmp_path / "recommendations" / "user-2.json").read_text())
    assert answer["user_id"] == "u2"
    assert [one["rank"] for one in answer["recommended"]] == [1, 2, 3]
    for one in answer["recommended"]:
        assert set(one["weights"]) == set(ready.modalities)
        assert f"{one['probability']:.3f}" in said
    with Image.open(tmp_path / "recommendations" / "user-2.png") as image:
        assert image.width > 500


def test_likes_of_somebody_new(door, tmp_path):
    out = tmp_path / "mine"
    said = door("--like=i3,i5", f"--out={out}", "--block_tags=nowhere", "--per_artist=1")
    answer = json.loads(out.with_suffix(".json").read_text())
    assert answer["liked"] == ["i3", "i5"]
    assert answer["user_id"] is None
    assert "no drawing has the tag 'nowhere'" in said
    named = [one["artist"] for one in answer["recommended"] if one["artist"]]
    assert len(named) == len(set(named))


def test_a_short_list_says_so(door):
    assert "Only 14 of 50: the filters leave no more" in door("--like=i3", "--k=50")


def test_more_in_the_style_of_a_picture(door, ready, tmp_path, monkeypatch):
    bank = small_world.bank()
    row = int(np.flatnonzero(bank.has_image)[0])
    monkeypatch.setattr(ready, "look_at", lambda _: {"style": bank.style[row] * 2})
    file = tmp_path / "mine.png"
    file.write_bytes(picture(3))
    door(f"--image={file}", "--by=style", "--k=4")
    answer = json.loads((tmp_path / "recommendations" / "mine-style.json").read_text())
    assert answer["nearest"][0]["illust_id"] == f"i{row}"
    assert answer["nearest"][0]["cosine"] == pytest.approx(1, abs=1e-5)
    assert len(answer["nearest"]) == 4


def test_lists_for_all(door, tmp_path):
    said = door("--all", "--k=2")
    assert f"recommendations for {small_world.USERS} users" in said
    assert len(read(tmp_path / "recommendations" / "all")) == 2 * small_world.USERS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "got nothing; expected one of --user, --like, --image, --all"),
        (("--user=u1", "--all"), "got --user, --all; expected one of"),
        (("--user=nobody",), "user: got 'nobody'; expected one of the 8 ids"),
        (("--image=/no/such.png",), "--image: /no/such.png cannot be used"),
        (("--image=x.png", "--by=text"), "--by: got 'text'; expected style or content"),
        (("--user=u1", "--diversity=2"), "expected k of 1 or more"),
    ],
)
def test_mistakes_are_named(door, arguments, said):
    with pytest.raises(ValueError, match=r"expected|cannot") as error:
        door(*arguments)
    assert said in str(error.value)
