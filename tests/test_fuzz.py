"""Random schemas, configs and damaged checkpoints: accepted, or refused in words; never a crash."""

import copy
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings, target
from hypothesis import strategies as st
from ml_collections import ConfigDict
from test_checkpoints import ABSTRACT, assert_state, directory, write

from configs import base, joint, retrieval
from umair_jax import settings as sections_of
from umair_jax.data.schema_config import SchemaConfig
from umair_jax.jobs import bookmarks, sections
from umair_jax.jobs import joint as joint_job
from umair_jax.jobs import retrieval as retrieval_job
from umair_jax.training import checkpoints as ckpt
from umair_jax.training.checkpoints import Checkpoints

QUIET = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-2, 9)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["text", "style", "adam", "int8", "temporal", "umair_fps", "max", "train/x"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=6,
)


def explained(error, *places):
    text = str(error)
    assert len(text) < 5000
    assert any(place in text for place in places), text


# Configs --------------------------------------------------------------------------------------

JOBS = {
    "base": (base, bookmarks, lambda c: bookmarks.ranker(c.to_dict()["model"], {})),
    "retrieval": (retrieval, retrieval_job, lambda c: None),
    "joint": (joint, joint_job, lambda c: bookmarks.ranker(c.to_dict()["model"], {})),
}
GIVEN = {name: module.get_config().to_dict() for name, (module, _, _) in JOBS.items()}


def keys_of(section, path=()):
    for key, value in section.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from keys_of(value, (*path, key))


def values_of(section):
    for value in section.values():
        yield value
        if isinstance(value, dict):
            yield from values_of(value)


@pytest.mark.parametrize("name", list(JOBS))
def test_any_value_of_a_config_is_taken_or_refused_by_name(name):
    _, job, more = JOBS[name]
    places = [path for path in keys_of(GIVEN[name]) if len(path) > 1]
    # Half of the values are some that another key has.
    others = st.sampled_from([v for v in values_of(GIVEN[name]) if not isinstance(v, dict)])
    answers = {"taken": 0, "refused": 0}

    @settings(QUIET, max_examples=100)
    @given(st.sampled_from(places), VALUES | others, st.integers(0, 9))
    def change(path, value, misspell):
        config = copy.deepcopy(GIVEN[name])
        inner = config
        for key in path[:-1]:
            inner = inner[key]
        key = path[-1] if misspell else path[-1] + "s"
        inner[key] = value
        try:
            made = ConfigDict(config)
        except (TypeError, ValueError):  # what ConfigDict itself does not hold
            assume(False)
        plain = ("model",) if name != "retrieval" else ()
        try:
            found = sections.read(made, job.SECTIONS, plain=plain)
            more(made)
            found["schema"].schema()
        except ValueError as error:
            answers["refused"] += 1
            explained(error, *path, key, "sections", "field")
        else:
            answers["taken"] += 1

    change()
    assert min(answers.values()) > 0


# Schemas --------------------------------------------------------------------------------------

FIELDS = st.sampled_from(["illust_id", "item_tag", "tag_0", "total_view", "width", "user_id"])
NUMBERS = st.integers(-2, 2**33) | st.floats() | st.integers(1, 9)
SCHEMAS = st.fixed_dictionaries(
    {},
    optional={
        "embedding_width": NUMBERS,
        "sizes": st.dictionaries(FIELDS | st.text(max_size=5), NUMBERS, max_size=4),
        "boundaries": st.dictionaries(FIELDS, st.lists(NUMBERS, max_size=5), max_size=3),
        "bookmark_rate": st.lists(st.floats(0, 1), max_size=4),
        "categories": NUMBERS,
        "interest_vectors": st.lists(st.sampled_from(["text", "content", "style", "x"])),
        "drop": st.lists(FIELDS | st.sampled_from(["img_styles", "tag_semantics"]), max_size=4),
    },
)


def test_any_schema_has_its_rows_in_bounds_or_is_refused():
    answers = {"taken": 0, "refused": 0}

    @settings(QUIET, max_examples=150)
    @given(SCHEMAS, st.integers(0, 2**31))
    def build(section, seed):
        try:
            schema = sections_of.build(SchemaConfig, section, "config.schema").schema()
            layouts = schema.embedding_layout(), schema.wide_layout()
        except ValueError as error:
            answers["refused"] += 1
            explained(error, "schema", "field", "interest_vectors", "embedding_width", "rows")
            return
        answers["taken"] += 1
        rng = np.random.default_rng(seed)
        for field in schema.sparse():
            local = np.append(rng.integers(0, field.size, 5), [-1, field.size - 1])
            for layout, rows in zip(
                layouts,
                (schema.embedding_rows(field.name, local), schema.wide_rows(field.name, local)),
                strict=True,
            ):
                assert rows[5] == 0  # unknown
                known = np.delete(rows, 5)
                assert known.min() >= 1
                assert known.max() < layout.used <= layout.rows

    build()
    assert min(answers.values()) > 10


# Checkpoints ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("saved")
    write(workdir, [4, 8])
    return workdir


def damaged(data: bytes, kind: str, at: float, value: object, noise: bytes) -> bytes | None:
    """A file after an accident; None = it is gone."""
    place = int(at * len(data))
    if kind == "gone":
        return None
    if kind == "cut":
        return data[:place]
    if kind == "flip" and data:
        place = min(place, len(data) - 1)
        return data[:place] + bytes([data[place] ^ (noise or b"\x01")[0] or 1]) + data[place + 1 :]
    if kind == "noise":
        return data[:place] + noise + data[place:]
    return json.dumps(value).encode()


def test_whatever_happens_to_a_checkpoint_a_whole_one_is_read(saved, tmp_path):
    names = sorted(
        str(path.relative_to(directory(saved, 8)))
        for path in directory(saved, 8).rglob("*")
        if path.is_file()
    )
    assert {"_CHECKPOINT_METADATA", "ledger/metadata", "state/_METADATA"} <= set(names)
    read = {4: 0, 8: 0}

    @settings(QUIET, max_examples=40)
    @given(
        st.sampled_from(names),
        st.sampled_from(["gone", "cut", "flip", "noise", "json"]),
        st.floats(0, 1),
        VALUES,
        st.binary(max_size=20),
    )
    def accident(name, kind, at, value, noise):
        workdir = tmp_path / "run"
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(saved, workdir)
        path = directory(workdir, 8) / name
        data = damaged(path.read_bytes(), kind, at, value, noise)
        path.unlink() if data is None else path.write_bytes(data)
        began, said = time.monotonic(), []
        checkpoints = Checkpoints(workdir, say=said.append)
        try:
            step, state, _ = checkpoints.restore_newest(ABSTRACT)
        finally:
            checkpoints.close()
        taken = time.monotonic() - began
        target(taken)  # look for what takes long
        assert taken < 60
        read[step] += 1
        assert_state(state, step)
        if step == 4 and said:
            assert "checkpoint 8 cannot be read" in said[0]
            assert (Path(workdir) / ckpt.UNREADABLE_DIR / "8").is_dir()

    accident()
    assert min(read.values()) > 0
