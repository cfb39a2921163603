"""The gallery answers, limits what visitors may ask for, and opens nothing else."""

import io
import json
import re
import socket
import threading
import time
from pathlib import Path

import anyio
import numpy as np
import pytest
from absl import flags
from PIL import Image
from starlette.testclient import TestClient
from toy_recommender import MODALITIES, ToyRecommender, world

from umair_jax import gallery, gallery_app, reporting
from umair_jax.data.images import load_square
from umair_jax.gallery_app.app import make_app
from umair_jax.gallery_app.guard import HEADERS
from umair_jax.gallery_app.limits import LOOPBACK_NAMES, Buckets, Limits
from umair_jax.gallery_app.pictures import SIZE, Pictures
from umair_jax.gallery_app.wall import PAGE, UnknownDrawings, Wall
from umair_jax.recommending.filters import Filters

ASK = "/api/recommendations"
PLENTY = {"api_rate": 1e6, "api_burst": 10**6, "file_rate": 1e6, "file_burst": 10**6}


def client_of(recommender=None, names=LOOPBACK_NAMES, filters=None, **limits):
    app = make_app(
        recommender or ToyRecommender(world()), names, filters, Limits(**PLENTY | limits)
    )
    return TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def recommender():
    return ToyRecommender(world())


@pytest.fixture(scope="module")
def client(recommender):
    return client_of(recommender)


def refused(answer, status, said):
    assert answer.status_code == status, answer.text
    assert re.search(said, answer.json()["error"]), answer.text


def test_the_site_says_whose_bookmarks_these_are(client):
    told = client.get("/api/site").json()
    assert told["simulated"] is True
    assert told["drawings"] == 150
    assert told["modalities"] == list(MODALITIES)
    assert told["limits"] == {"likes": 200, "k": 60}


def test_pages_show_every_drawing_once(client):
    pages = [client.get(f"/api/drawings?page={k}").json() for k in range(4)]
    assert [len(page["drawings"]) for page in pages] == [PAGE, PAGE, 30, 0]
    assert {(page["pages"], page["total"]) for page in pages} == {(3, 150)}
    ids = [drawing["illust_id"] for page in pages for drawing in page["drawings"]]
    assert sorted(ids) == sorted(f"i{k}" for k in range(1, 151))


def test_a_search_needs_every_word_and_puts_tags_first():
    data = world(
        4,
        title=("", "Red cat", "a CAT", "dog", "catalogue"),
        artist=("", "Mio", "Mio", "Cat", ""),
        tags=((), (), ("cat", "ink"), (), ()),
    )
    client = client_of(ToyRecommender(data))

    def found(query):
        drawings = client.get("/api/drawings", params={"q": query}).json()["drawings"]
        return [drawing["illust_id"] for drawing in drawings]

    assert found("cat")[0] == "i2"
    assert set(found(" cat ")) == {"i1", "i2", "i3", "i4"}
    assert found("MIO cat red") == ["i1"]
    assert found("bird") == []


def test_the_wall_shows_every_artist_before_any_comes_again():
    artist = ("", *(["much"] * 40), "one", "two", "", "")
    data = world(44, artist=artist)
    wall = Wall(data, np.arange(45) > 0, seed=3)
    first = [artist[row] for row in wall.page(0).rows]
    assert sorted(first[:5]) == ["", "", "much", "one", "two"]
    assert wall.page(0) == Wall(data, np.arange(45) > 0, seed=3).page(0)
    assert wall.page(0) != Wall(data, np.arange(45) > 0, seed=4).page(0)


def test_a_like_changes_what_is_recommended(client):
    nobody, one = (client.post(ASK, json={"likes": likes}).json() for likes in ([], ["i3"]))
    assert nobody["liked"] == []
    assert [drawing["illust_id"] for drawing in one["liked"]] == ["i3"]
    picks = [pick["illust_id"] for pick in one["recommended"]]
    assert len(picks) == 12
    assert "i3" not in picks
    assert picks != [pick["illust_id"] for pick in nobody["recommended"]]
    assert all(pick["because"] is None for pick in nobody["recommended"])
    first = one["recommended"][0]
    assert first["because"]["illust_id"] == "i3"
    assert first["because"]["title"] == one["liked"][0]["title"]
    assert list(first["weights"]) == list(MODALITIES)
    assert "user_id" not in one


def test_what_is_asked_for_reaches_the_recommender(client, recommender):
    body = {"likes": ["i9", "i5", "i9"], "balance": -0.5, "diversity": 1, "per_artist": 2, "k": 7}
    told = client.post(ASK, json=body).json()
    who, request = recommender.asked[-1]
    assert who.liked.tolist() == [5, 9]
    assert (request.balance, request.choice.diversity) == (-0.5, 1)
    assert (request.choice.per_artist, request.choice.k) == (2, 7)
    assert len(told["recommended"]) == 7


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "body: got no JSON"),
        (b"[" * 60_000, "body: got no JSON"),
        (b"\xff\xfe", "body: got no JSON"),
        (b"[]", "body: got a list; expected an object"),
        (b'{"like": []}', "unknown key 'like'; did you mean 'likes'"),
        (b'{"likes": "i1"}', r"body.likes: got 'i1'"),
        (b'{"likes": [1]}', r"body.likes\[0\]: got 1"),
        (b'{"balance": 1.5}', "balance"),
        (b'{"balance": NaN}', "balance"),
        (b'{"balance": true}', "body.balance: got True"),
        (b'{"diversity": 1e999}', "diversity"),
        (b'{"per_artist": -1}', "per_artist"),
        (b'{"k": 0}', "k of 1 or more"),
        (b'{"k": 61}', "body.k: got 61; expected 1 to 60"),
        (b'{"k": 2.5}', "body.k: got 2.5"),
        (b'{"likes": ["' + b'","'.join([b"i1"] * 201) + b'"]}', "got 201 drawings"),
        (b'{"likes": ["nobody", "i1"]}', "unknown drawings 'nobody'"),
        (b'{"likes": ["\\ud800"]}', "unknown drawings"),
    ],
)
def test_a_wrong_body_is_refused_and_said_why(client, body, said):
    headers = {"content-type": "application/json"}
    refused(client.post(ASK, content=body, headers=headers), 400, said)


def test_unknown_ids_are_named(client):
    told = client.post(ASK, json={"likes": ["i1", "x", "y"]}).json()
    assert told["unknown"] == ["x", "y"]


def test_bodies_are_limited_in_length_kind_and_time(recommender):
    client = client_of(recommender, body_bytes=64, body_seconds=0.05)
    long = json.dumps({"likes": ["i1"] * 30})
    headers = {"content-type": "application/json"}
    refused(client.post(ASK, content=long, headers=headers), 413, "64 bytes")
    refused(client.post(ASK, content=iter([b"x" * 40] * 4), headers=headers), 413, "64 bytes")
    refused(client.post(ASK, content="{}", headers={"content-type": "text/plain"}), 415, "json")
    refused(client.post(ASK, content="{}", headers={"content-type": ""}), 415, "json")

    async def slow():
        async def receive():
            await anyio.sleep(5)

        sent = []

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": ASK,
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
            "query_string": b"",
        }
        await make_app(recommender, limits=Limits(body_seconds=0.05))(scope, receive, send)
        return sent[0]["status"]

    assert anyio.run(slow) == 408


def test_similar_drawings_are_the_nearest_by_that_vector(client, recommender):
    for by in ("style", "content", "text"):
        told = client.get("/api/similar/i4", params={"by": by, "k": 5}).json()
        units = recommender.vectors.by[by]
        cosines = np.where(units.any(axis=1), units @ units[4], -np.inf)
        cosines[[0, 4]] = -np.inf
        best = np.argsort(-cosines)[:5]
        assert [d["illust_id"] for d in told["nearest"]] == [f"i{row}" for row in best]
        assert told["nearest"][0]["cosine"] == pytest.approx(cosines.max(), abs=1e-6)
        assert (told["by"], told["drawing"]["illust_id"]) == (by, "i4")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/api/similar/nobody", "unknown drawings 'nobody'"),
        ("/api/similar/i1?by=smell", "by: got 'smell'; expected one of content, style, text"),
        ("/api/similar/i1?k=61", "k: got '61'; expected a number, 1 to 60"),
        ("/api/drawings?page=-1", "page: got '-1'"),
        ("/api/drawings?page=1e9", "page: got '1e9'"),
        ("/api/drawings?page=٣", "page: got"),
        ("/api/drawings?page=" + 5000 * "9", "page: got"),
        ("/api/drawings?q=" + 101 * "a", "q: got 101 characters"),
    ],
)
def test_a_wrong_query_is_refused_and_said_why(client, address, said):
    refused(client.get(address), 400, said)


def test_ids_may_have_any_characters():
    names = ("", "a/b", "../../etc/passwd", "ü ?#%")
    client = client_of(ToyRecommender(world(3, illust_id=names)))
    for name in names[1:]:
        assert client.post(ASK, json={"likes": [name]}).status_code == 200
    assert client.get("/api/similar/a%2Fb").json()["drawing"]["illust_id"] == "a/b"
    assert client.get("/api/similar/%C3%BC%20%3F%23%25").json()["drawing"]["illust_id"] == names[3]


def test_filters_hide_drawings_everywhere(recommender):
    tags = recommender.dataset.items.tags
    tag = next(filter(None, tags))[0]
    hidden = [row for row in range(1, 151) if tag in tags[row]]
    client = client_of(recommender, filters=Filters(block_tags=(tag,)))
    names = {f"i{row}" for row in hidden}
    assert client.get("/api/site").json()["drawings"] == 150 - len(hidden)
    found = client.get("/api/drawings", params={"q": tag}).json()["drawings"]
    assert not [drawing for drawing in found if tag in drawing["tags"]]
    picks = client.post(ASK, json={"likes": [], "k": 60}).json()["recommended"]
    near = client.get("/api/similar/" + picks[0]["illust_id"] + "?k=60").json()["nearest"]
    assert not names & {each["illust_id"] for each in [*picks, *near]}
    one = next(row for row in hidden if row % 7)
    assert client.get(f"/thumbnail/{one}.webp").status_code == 404
    refused(client.post(ASK, json={"likes": [f"i{one}"]}), 400, "unknown drawings")
    refused(client.get(f"/api/similar/i{one}"), 400, "unknown drawings")


# Pictures ----------------------------------------------------------------------------------------


def drawings(client):
    return client.get("/api/drawings").json()["drawings"]


def test_thumbnails_are_kept_by_browsers_under_an_address_of_their_content(client):
    address = next(each["picture"] for each in drawings(client) if each["picture"])
    answer = client.get(address)
    assert answer.headers["content-type"] == "image/webp"
    assert "immutable" in answer.headers["cache-control"]
    assert Image.open(io.BytesIO(answer.content)).size == (96, 96)
    again = client.get(address, headers={"if-none-match": f"W/{answer.headers['etag']}"})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(address.partition("?")[0]).headers["cache-control"] == "no-cache"


def test_a_drawing_without_a_picture_says_so(client):
    lacking = [each["illust_id"] for each in drawings(client) if each["picture"] is None]
    assert {f"i{row}" for row in range(7, 151, 7)} & set(lacking)
    refused(client.get("/thumbnail/7.webp"), 404, "no picture")


def test_large_pictures_become_small_and_small_ones_stay():
    data = world(2)
    large = io.BytesIO()
    Image.new("RGB", (900, 450), (200, 30, 30)).save(large, "PNG")
    read = data.images.read
    data.images.read = lambda row: large.getvalue() if row == 1 else read(row)
    pictures = Pictures(data, 2**20)
    shown = Image.open(io.BytesIO(pictures.read(1))).convert("RGB")
    assert shown.size == (SIZE, SIZE)
    wanted = load_square(large.getvalue(), SIZE)
    assert np.abs(np.asarray(shown, int) - wanted).mean() < 4
    assert Image.open(io.BytesIO(pictures.read(2))).size == (96, 96)


def test_thumbnails_are_encoded_once_and_the_memory_for_them_is_bounded():
    data = world(40)
    pictures = Pictures(data, 2**20)
    everyone = [threading.Thread(target=pictures.read, args=(3,)) for _ in range(8)]
    for thread in everyone:
        thread.start()
    for thread in everyone:
        thread.join()
    assert data.images.read_rows == [3]
    size = len(pictures.read(3))
    few = Pictures(data, 3 * size)
    for row in (1, 2, 3, 1, 4, 5, 6, 8):
        few.read(row)
    read = data.images.read_rows[:]
    few.read(8)
    assert data.images.read_rows == read
    few.read(1)
    assert data.images.read_rows == [*read, 1]


# Safety ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "/static/../../../../etc/passwd",
        "/static/%2e%2e%2f%2e%2e%2fapp.py",
        "/static/..%5c..%5capp.py",
        "/static/app.py",
        "/static//etc/passwd",
        "/thumbnail/../static/gallery.js.webp",
        "/thumbnail/0.webp",
        "/thumbnail/151.webp",
        "/thumbnail/-1.webp",
        "/thumbnail/01.webp",
        "/thumbnail/1",
        "/thumbnail/1.png",
        "/thumbnail/" + 5000 * "9" + ".webp",
        "/thumbnail/٣.webp",
        "/favicon.ico",
        "/index.html",
    ],
)
def test_no_other_file_is_opened(client, address, monkeypatch):
    def no_opening(*_, **__):
        raise AssertionError("opened a file")

    monkeypatch.setattr(io, "open", no_opening)
    monkeypatch.setattr("builtins.open", no_opening)
    assert client.get(address).status_code == 404


def test_every_answer_has_the_headers(client):
    answers = [
        client.get("/"),
        client.get("/static/gallery.js"),
        client.get("/api/site"),
        client.get("/nothing"),
        client.post("/"),
        client.post(ASK, content=b"x", headers={"content-type": "application/json"}),
        client.get("/", headers={"host": "evil.example"}),
    ]
    assert [a.status_code for a in answers] == [200, 200, 200, 404, 405, 400, 400]
    for answer in answers:
        assert answer.headers.items() >= HEADERS.items(), answer.url
    assert "default-src 'self'" in HEADERS["content-security-policy"]
    assert "frame-ancestors 'none'" in HEADERS["content-security-policy"]
    assert answers[2].headers["cache-control"] == "no-store"


def test_a_fault_says_nothing_of_its_inside():
    class Faulty(ToyRecommender):
        def recommend(self, who, request):
            raise RuntimeError("secret")

    answer = client_of(Faulty(world(5))).post(ASK, json={})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers.items() >= HEADERS.items()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8000", 200),
        ("evil.example", 400),
        ("localhost.evil.example", 400),
        ("localhost:8000@evil.example", 400),
        ("127.0.0.1:port", 400),
        ("[::1", 400),
        ("", 400),
    ],
)
def test_only_names_of_this_computer_are_answered(client, host, status):
    assert client.get("/api/site", headers={"host": host}).status_code == status


def test_any_name_is_answered_where_others_can_see_it_anyway(recommender):
    client = client_of(recommender, names=None)
    assert client.get("/", headers={"host": "drawings.example"}).status_code == 200


def test_a_visitor_who_asks_too_often_waits(recommender):
    client = client_of(recommender, api_rate=0.5, api_burst=3)
    answers = [client.get("/api/site") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[3].headers["retry-after"] == "2"
    assert client.get("/").status_code == 200


def test_buckets_fill_again_and_belong_to_one_visitor():
    now = [0.0]
    buckets = Buckets(2.0, 2, lambda: now[0])
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0.5]
    assert buckets.take("b") == 0
    now[0] = 0.5
    assert [buckets.take("a") for _ in range(2)] == [0, 0.5]
    now[0] = 100.0
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0.5]


def test_what_does_not_fit_into_the_queue_is_turned_away_and_pages_go_on():
    class Slow(ToyRecommender):
        entered, go = threading.Event(), threading.Event()

        def recommend(self, who, request):
            self.entered.set()
            assert self.go.wait(20)
            return super().recommend(who, request)

    slow = Slow(world(20))
    answers = []
    with client_of(slow, waiting=1) as client:

        def post():
            answers.append(client.post(ASK, json={}).status_code)

        asking = [threading.Thread(target=post) for _ in range(8)]
        asking[0].start()
        assert slow.entered.wait(20)
        # The ranker is at work; the wall answers all the same.
        assert client.get("/api/drawings").status_code == 200
        for thread in asking[1:]:
            thread.start()
        end = time.monotonic() + 15
        while len(answers) < 6 and time.monotonic() < end:
            time.sleep(0.01)  # the others need the interpreter too
        slow.go.set()
        for thread in asking:
            thread.join()
    # One is ranked for, one waits, however close together they come.
    assert sorted(answers) == [200] * 2 + [503] * 6


# The pages and the front door --------------------------------------------------------------------


def test_pages_load_nothing_from_elsewhere(client):
    for name in ("", "static/gallery.css", "static/gallery.js", "static/icon.svg"):
        text = client.get("/" + name).text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.|url\(|@import|innerHTML|eval\(", text), name
    page = client.get("/").text
    assert not re.search(r"<style|style=|<script(?! type=\"module\" src=)| on\w+=", page)


def test_colours_are_those_of_the_report():
    def schemes(text):
        return [
            dict(re.findall(r"(--[\w-]+): ([^;]+);", block))
            for block in re.findall(r":root \{(.*?)\}", text, re.S)[:2]
        ]

    ours = schemes((Path(gallery_app.__file__).parent / "pages/gallery.css").read_text("utf-8"))
    theirs = schemes((Path(reporting.__file__).parent / "page.css").read_text("utf-8"))
    for mine, other in zip(ours, theirs, strict=True):
        shared = mine.keys() & other.keys()
        assert {"--paper", "--ink", "--content"} <= shared
        assert {name: mine[name] for name in shared} == {name: other[name] for name in shared}


def test_a_wall_knows_the_last_place_of_a_repetition():
    wall = Wall(world(5), np.arange(6) > 0)
    assert wall.rows(["i2", "i1", "i2"]) == [1, 2]
    with pytest.raises(UnknownDrawings, match=r"'x0'.* and 4 more"):
        wall.rows([f"x{k}" for k in range(9)])


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_names_follow_from_the_address(host, loopback):
    assert gallery.is_loopback(host) is loopback
    assert (gallery.names_of(host, []) is None) is not loopback
    assert gallery.names_of(host, [" Drawings.example "]) >= {"drawings.example", *LOOPBACK_NAMES}


def test_a_port_that_is_taken_and_a_host_that_is_not_here_are_said():
    with (
        gallery.listen("127.0.0.1", 0) as taken,
        pytest.raises(ValueError, match="name another --port"),
    ):
        gallery.listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ValueError, match=r"--host, --port: got 192\.0\.2\.1:0"):
        gallery.listen("192.0.2.1", 0)
    with pytest.raises(ValueError, match="--port: got 70000"):
        gallery.listen("127.0.0.1", 70000)


def test_the_front_door_serves_and_warns(monkeypatch, capsys):
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    for name in ("DEFINE_string", "DEFINE_integer", "DEFINE_list"):
        define = getattr(flags, name)
        monkeypatch.setattr(flags, name, lambda *a, d=define: d(*a, flag_values=values))
    gallery.define_flags()
    toy = ToyRecommender(world(9))
    monkeypatch.setattr(gallery.recommender, "load", lambda *_: toy)
    served = []

    class Server:
        def run(self, sockets):
            served.extend(sockets)
            raise KeyboardInterrupt

    monkeypatch.setattr(gallery, "server_of", lambda app: Server())
    values(["gallery", "--workdir=run", "--port=0", "--block_tags=nothing"])
    gallery.main(["gallery"])
    said = capsys.readouterr().out
    assert re.search(r"made up, checkpoint 7: http://127.0.0.1:\d+/", said)
    assert "no drawing has the tag 'nothing'" in said
    assert "no password" not in said
    assert len(toy.asked) == 1
    assert isinstance(served[0], socket.socket)
    values(["gallery", "--workdir=run", "--port=0", "--host=0.0.0.0"])
    gallery.main(["gallery"])
    assert "there is no password" in " ".join(capsys.readouterr().out.split())
    values["workdir"].value = None
    with pytest.raises(ValueError, match="--workdir: got nothing"):
        gallery.main(["gallery"])
