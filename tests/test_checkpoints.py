import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from umair_jax.training import checkpoints as ckpt
from umair_jax.training.checkpoints import CheckpointConfig, Checkpoints
from umair_jax.training.fingerprint import fingerprint
from umair_jax.training.ledger import Ledger
from umair_jax.training.sharding import MeshConfig, make_mesh


def state_of(step, devices=8, rows=1024):
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    table = np.random.default_rng(step).normal(size=(rows, 32)).astype(np.float32)
    return {
        "step": jax.device_put(jnp.int32(step), NamedSharding(mesh, P())),
        "table": jax.device_put(table, NamedSharding(mesh, P(("data", "model")))),
    }


def abstract_of(state):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )


ABSTRACT = abstract_of(state_of(0))


def write(workdir, steps, config=None, best=-1):
    saved = Checkpoints(workdir, config)
    for step in steps:
        saved.save(step, state_of(step), Ledger(best_step=min(best, step)))
    saved.close()


def directory(workdir, step):
    return workdir / ckpt.CHECKPOINT_DIR / str(step)


def value_files(workdir, step):
    """The files that hold the table; Orbax writes small ones twice."""
    files = [path for path in directory(workdir, step).rglob("*") if path.is_file()]
    return [path for path in files if path.stat().st_size > 4000]


def truncate(workdir, step):
    for path in value_files(workdir, step):
        path.write_bytes(path.read_bytes()[:-700])


def flip(workdir, step):
    for path in value_files(workdir, step):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)


def alter_ledger(workdir, step):
    path = directory(workdir, step) / "ledger" / "metadata"
    record = json.loads(path.read_text()) | {"best_step": 3}
    path.write_text(json.dumps(record))


def remove_values(workdir, step):
    for path in value_files(workdir, step):
        path.unlink()


def restore(workdir, abstract=ABSTRACT, config=None, **options):
    saved = Checkpoints(workdir, config, **options)
    try:
        return saved.restore_newest(abstract)
    finally:
        saved.close()


def assert_state(state, step):
    expected = state_of(step)
    assert int(state["step"]) == step
    np.testing.assert_array_equal(np.asarray(state["table"]), np.asarray(expected["table"]))


def test_state_and_ledger_come_back(tmp_path):
    ledger = Ledger(
        window={"loss": [0.1 + 0.2, 3.0]},
        evals={"valid": {"auc": 1 / 3, "gauc": None}},
        best_step=4,
        best_value=1e-17,
        spent={"seconds": 2.5},
    )
    saved = Checkpoints(tmp_path)
    assert saved.restore_newest(ABSTRACT) is None
    assert saved.save(4, state_of(4), ledger)
    assert not saved.save(4, state_of(5), Ledger())
    saved.close()
    step, state, found = restore(tmp_path)
    assert (step, found) == (4, ledger)
    assert_state(state, 4)
    assert state["table"].sharding == ABSTRACT["table"].sharding


def test_a_state_may_be_donated_once_save_returns(tmp_path):
    """Orbax writes in the background; the next update overwrites the arrays meanwhile."""
    update = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    state = state_of(1, rows=4096)
    expected = np.asarray(state["table"]).copy()
    saved = Checkpoints(tmp_path)
    saved.save(1, state, Ledger())
    for _ in range(20):
        state = update(state)
    saved.close()
    _, found, _ = restore(tmp_path, abstract_of(state))
    np.testing.assert_array_equal(np.asarray(found["table"]), expected)


@pytest.mark.parametrize("devices", [1, 2])
def test_another_number_of_devices(devices, tmp_path):
    write(tmp_path, [3])
    abstract = abstract_of(state_of(0, devices))
    _, state, _ = restore(tmp_path, abstract)
    assert_state(state, 3)
    assert state["table"].sharding == abstract["table"].sharding


def test_the_newest_and_the_best_are_kept(tmp_path):
    write(tmp_path, [5, 10, 15, 20, 25], CheckpointConfig(keep=2), best=10)
    assert Checkpoints(tmp_path, read_only=True).steps() == [10, 20, 25]
    # A better one lets the old one go, also after the run was taken up again.
    saved = Checkpoints(tmp_path, CheckpointConfig(keep=1))
    saved.restore_newest(ABSTRACT)
    saved.save(30, state_of(30), Ledger(best_step=10))
    saved.wait()
    assert saved.steps() == [10, 30]
    saved.save(35, state_of(35), Ledger(best_step=35))
    saved.close()
    assert Checkpoints(tmp_path, read_only=True).steps() == [35]


def test_replacing_needs_another_one_meanwhile(tmp_path):
    saved = Checkpoints(tmp_path)
    saved.save(1, state_of(1), Ledger())
    assert not saved.save(1, state_of(1), Ledger(best_step=1), replace=True)
    saved.save(2, state_of(2), Ledger())
    saved.wait()
    assert saved.save(2, state_of(2), Ledger(best_step=2), replace=True)
    saved.close()
    assert restore(tmp_path)[2].best_step == 2


@pytest.mark.parametrize("damage", [truncate, flip, alter_ledger, remove_values])
def test_a_damaged_newest_one_is_set_aside(damage, tmp_path):
    write(tmp_path, [5, 10], best=5)
    damage(tmp_path, 10)
    said = []
    step, state, _ = restore(tmp_path, say=said.append)
    assert step == 5
    assert_state(state, 5)
    assert len(said) == 1
    assert "checkpoint 10 cannot be read" in said[0]
    assert "moved to unreadable_checkpoints/10, going on from checkpoint 5" in said[0]
    assert (tmp_path / ckpt.UNREADABLE_DIR / "10" / "state").is_dir()
    assert not directory(tmp_path, 10).exists()
    # Its place is free again.
    write(tmp_path, [10])
    assert_state(restore(tmp_path)[1], 10)


def test_a_flipped_bit_is_found_by_the_values(tmp_path):
    write(tmp_path, [5, 10])
    flip(tmp_path, 10)
    said = []
    restore(tmp_path, say=said.append)
    assert "values are not those that were saved: table" in said[0]


def test_all_damaged(tmp_path):
    write(tmp_path, [5, 10])
    truncate(tmp_path, 5)
    flip(tmp_path, 10)
    with pytest.raises(ValueError, match="can be read") as error:
        restore(tmp_path)
    assert "step 5: " in str(error.value)
    assert "step 10: ValueError: values are not those" in str(error.value)
    assert "restart the run" in str(error.value)
    assert directory(tmp_path, 5).exists()
    assert directory(tmp_path, 10).exists()


def test_another_model_is_refused_and_nothing_moved(tmp_path):
    write(tmp_path, [5])
    for other in (
        ABSTRACT | {"table": abstract_of(state_of(0, rows=2048))["table"]},
        ABSTRACT | {"more": ABSTRACT["step"]},
        {"table": ABSTRACT["table"]},
    ):
        with pytest.raises(ValueError, match="step 5: "):
            restore(tmp_path, other)
    assert_state(restore(tmp_path)[1], 5)


def test_what_an_interrupted_save_left_is_removed(tmp_path):
    write(tmp_path, [5])
    left = tmp_path / ckpt.CHECKPOINT_DIR / "10.orbax-checkpoint-tmp-123"
    (left / "state").mkdir(parents=True)
    (left / "state" / "half").write_text("x")
    reader = Checkpoints(tmp_path, read_only=True)
    assert reader.steps() == [5]
    reader.close()
    assert left.exists(), "a run may be writing it"
    assert restore(tmp_path)[0] == 5
    assert not left.exists()


def test_read_only_changes_nothing(tmp_path):
    write(tmp_path, [5, 10])
    flip(tmp_path, 10)
    before = sorted(tmp_path.rglob("*"))
    said = []
    assert restore(tmp_path, say=said.append, read_only=True)[0] == 5
    assert "moved" not in said[0]
    assert "going on from checkpoint 5" in said[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_load(tmp_path):
    write(tmp_path, [5, 10, 15, 20], best=10)
    for which, step in (("best", 10), ("newest", 20), ("15", 15)):
        found, state, _ = ckpt.load(tmp_path, ABSTRACT, which)
        assert found == step
        assert_state(state, step)
    with pytest.raises(ValueError, match=r"no checkpoint 5 in .*; have: \[10, 15, 20\]"):
        ckpt.load(tmp_path, ABSTRACT, "5")
    with pytest.raises(ValueError, match="'bset'; allowed: best, newest, or a step"):
        ckpt.load(tmp_path, ABSTRACT, "bset")
    flip(tmp_path, 10)
    with pytest.raises(ValueError, match=r"checkpoint 10 .* besides: \[15, 20\]"):
        ckpt.load(tmp_path, ABSTRACT)


def test_load_without_a_best_takes_the_newest(tmp_path):
    with pytest.raises(ValueError, match="train first"):
        ckpt.load(tmp_path / "nothing", ABSTRACT)
    assert not (tmp_path / "nothing").exists()
    write(tmp_path, [5, 10])
    assert ckpt.load(tmp_path, ABSTRACT)[0] == 10


def test_clear_removes_only_what_a_run_wrote(tmp_path):
    write(tmp_path, [5])
    for name in ("config.json", "metrics.jsonl", "summary.json", "mine.txt"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "tensorboard").mkdir()
    ckpt.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": 0}, "1 or more, got 0"),
        ({"best_mode": "biggest"}, "allowed: max, min"),
        ({"best_metric": "auc"}, "'valid/auc', got 'auc'"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        CheckpointConfig(**change)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool", "float16"])
def test_fingerprints_find_every_change(dtype):
    generator = np.random.default_rng(0)
    values = jnp.asarray(generator.integers(0, 2, (16, 5, 3)), dtype)
    before = fingerprint({"a": values})["a"]
    zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
    swapped = values.at[0, 1, 2].set(one).at[9, 0, 1].set(zero)
    other = values.at[0, 1, 2].set(zero).at[9, 0, 1].set(one)
    assert fingerprint({"a": swapped}) != fingerprint({"a": other})
    for place in ((0, 0, 0), (15, 4, 2), (7, 2, 1)):
        changed = values.at[place].set(zero if values[place] else one)
        assert fingerprint({"a": changed})["a"] != before
    assert fingerprint({"a": values.T})["a"] != before
    assert 0 <= before < 2**32


def test_fingerprints_are_the_same_on_every_mesh():
    states = [state_of(3, devices) for devices in (1, 2, 8)]
    first, *others = (fingerprint(state) for state in states)
    assert list(first) == ["step", "table"]
    assert all(other == first for other in others)


def test_fingerprints_see_the_sign_of_zero_and_nan():
    found = [fingerprint({"x": jnp.array([v])})["x"] for v in (0.0, -0.0, jnp.nan)]
    assert len(set(found)) == 3
    # An even number of flipped top bits, which a sum of weighted bits would not see.
    values = jnp.arange(1.0, 101.0)
    assert fingerprint({"x": values}) != fingerprint({"x": -values})
