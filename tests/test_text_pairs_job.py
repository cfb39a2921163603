"""The text encoder's task as pure functions, and the whole job at a small size."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from configs import text_pairs as config_file
from umair_jax.data.pair_batches import PairSource
from umair_jax.data.tokenizer import encode_ragged, train_tokenizer
from umair_jax.encoding import text_model
from umair_jax.jobs.text_pairs import WordsConfig
from umair_jax.models.losses import RankingConfig
from umair_jax.models.text_encoder import TextEncoderConfig
from umair_jax.tasks.text_pairs import PairObjectiveConfig, TextPairsTask
from umair_jax.train import train
from umair_jax.training import state as states
from umair_jax.training.optimisers import OptimConfig, make_optimiser
from umair_jax.training.sharding import DEFAULT_RULES, BatchPlacer, MeshConfig, make_mesh
from umair_jax.training.step import TrainStep
from umair_jax.training.table_optimisers import TableOptimConfig

pytestmark = pytest.mark.usefixtures("compiled_once")

ROW = 16
TINY = {"layers": 1, "width": 16, "heads": 2, "ffn": 32, "max_positions": ROW, "output": 12}


@pytest.fixture(scope="module")
def source():
    texts = [f"{colour} {thing}" for colour in ("red", "green", "blue") for thing in "abcdefgh"]
    words = train_tokenizer(texts, 100)
    tokens = encode_ragged(words, texts, ROW)
    first = np.arange(24, dtype=np.int32)
    return PairSource(tokens, first, np.roll(first, 8), 16, row_tokens=ROW)


def task(**options):
    shape = TextEncoderConfig(vocabulary=100, dropout=0.0, **TINY)
    return TextPairsTask(shape, PairObjectiveConfig(**options), ROW)


def updated(devices, batch, made):
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    optimiser = make_optimiser(OptimConfig("sgd", 0.5), 10)
    init = states.initialiser(made, optimiser, TableOptimConfig(), seed=0)
    abstract = states.abstract_state(init, mesh, DEFAULT_RULES)
    step = TrainStep(made, optimiser, TableOptimConfig(), mesh, 0, abstract)
    state, packed = step(states.create(init, abstract), {}, BatchPlacer(mesh, 16)(batch))
    return step.unpack(packed), jax.device_get(state["params"]["net"])


@pytest.mark.parametrize("parts", [1, 2])
def test_the_negatives_are_those_of_all_devices(source, parts):
    made = task(parts=parts, ranking=RankingConfig(symmetric=True))
    one, net_of_one = updated(1, source.batch(0), made)
    for devices in (2, 8):
        many, net = updated(devices, source.batch(0), made)
        assert many["loss"][0] == pytest.approx(one["loss"][0], rel=1e-5)
        for a, b in zip(jax.tree.leaves(net_of_one), jax.tree.leaves(net), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_padded_pair_counts_nowhere(source):
    made = task()
    net = jax.jit(made.init)(jax.random.key(0))["params"]["net"]
    batch = source.batch(0)
    batch["weight"] = np.array([1] * 12 + [0] * 4, np.float32)
    other = dict(batch, tokens=np.where(batch["slot"] % 16 >= 12, 7, batch["tokens"]))
    loss = jax.jit(lambda b: made.loss(net, {}, {}, {}, b, jax.random.key(0))[0])
    losses = [float(loss(jax.tree.map(jnp.asarray, b))) for b in (batch, other)]
    assert losses[0] == losses[1]


def test_the_encoder_that_comes_out_is_the_one_inside(source):
    made = task()
    params = jax.jit(made.init)(jax.random.key(0))["params"]
    batch = jax.tree.map(jnp.asarray, source.batch(0))
    inside = jax.jit(lambda b: made.predict(params["net"], {}, {}, {}, b))(batch)
    tokens, lengths = source._texts.padded(source.batch(0)["first"], ROW), source._texts.lengths
    mask = np.arange(ROW) < lengths[source.batch(0)["first"]][:, None]
    encoder = made.encoder(params)
    encode = jax.jit(lambda tokens, mask: encoder(tokens, mask))
    outside = np.asarray(encode(jnp.asarray(tokens), jnp.asarray(mask)))
    outside = outside / np.linalg.norm(outside, axis=1, keepdims=True)
    np.testing.assert_allclose(inside["first"], outside, rtol=1e-4, atol=1e-5)


def test_rows_must_fit_the_positions():
    with pytest.raises(ValueError, match="max_positions"):
        TextPairsTask(TextEncoderConfig(**TINY), PairObjectiveConfig(), ROW + 1)


def small_config(folder):
    rows = [
        {"perspective": "multilingual", "text_a": f"thing {i}", "text_b": f"chose {i}",
         "lang_a": "en", "lang_b": "fr"}
        for i in range(200)
    ]  # fmt: skip
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    config = config_file.get_config()
    with config.unlocked():
        config.data.limit = 40
        config.data.root = str(folder / "data")
        config.pairs.path = str(path)
        config.pairs.fractions = (0.6, 0.2, 0.2)
        config.words.vocabulary_size = 400
        config.model.update({"width": 16, "heads": 2, "ffn": 32, "output": 12, "dropout": 0.0})
        config.train.update({"batch_size": 64, "epochs": 30.0, "eval_every_steps": 0})
        config.optim.learning_rate = 1e-2
        config.eval.batch_size = 64
        config.log.tensorboard = False
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory, compiled_once):
    folder = tmp_path_factory.mktemp("text_pairs")
    config = small_config(folder)
    summary = train(config, folder / "run", console=Console(quiet=True))
    return folder, config, summary


def test_the_job_finds_partners_that_it_never_saw(run):
    _, _, summary = run
    chance = 10 / summary["pairs"]["test"]
    assert summary["test"]["multilingual_recall_at_10"] > 2 * chance
    assert summary["padding_share"] < 0.15
    assert summary["languages"][0]["to"] == "fr"
    assert set(summary["pairs"]) == {"train", "valid", "test"}


def test_the_job_leaves_an_encoder_and_its_tokenizer(run):
    folder, _, summary = run
    model = text_model.read(folder / "run")
    assert model.words.get_vocab_size() == summary["vocabulary"]
    assert model.max_tokens == config_file.get_config().words.max_tokens
    tokens = encode_ragged(model.words, ["thing 1", "chose 1", "thing 2"], 16)
    mask = np.arange(16) < tokens.lengths[:, None]
    rows = jnp.asarray(tokens.padded(np.arange(3), 16))
    found = np.asarray(model.encoder()(rows, jnp.asarray(mask)))
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    assert found[0] @ found[1] > found[2] @ found[1]


def test_training_goes_on_from_given_weights(run):
    folder, config, summary = run
    again = ConfigDict(config.to_dict())
    again.words.weights = str(folder / "run")
    again.train.update({"steps": 1, "epochs": 0.0})
    again.optim.learning_rate = 1e-9
    found = train(again, folder / "again", console=Console(quiet=True))
    # Stored in half precision in between.
    assert found["test"]["mrr"] == pytest.approx(summary["test"]["mrr"], abs=0.02)


def test_the_preset_for_given_weights_trains_them(run):
    folder, config, summary = run
    preset = config_file.get_config(str(folder / "run"))
    assert preset.model.to_dict() == config.model.to_dict()
    with preset.unlocked():
        for name in ("data", "pairs", "eval", "log"):
            preset[name] = config[name]
        preset.train.update({"steps": 1, "epochs": 0.0, "batch_size": 64})
    found = train(preset, folder / "preset", console=Console(quiet=True))
    assert found["test"]["mrr"] == pytest.approx(summary["test"]["mrr"], abs=0.02)
    with preset.unlocked():
        preset.model.update({"heads": 4, "dropout": 0.5, "dtype": "bfloat16"})
    with pytest.raises(ValueError, match=r"config\.model: got heads=4; expected heads=2, as the"):
        train(preset, folder / "wrong", console=Console(quiet=True))


def test_weights_bring_their_tokenizer():
    with pytest.raises(ValueError, match="expected one of them"):
        WordsConfig(weights="builtin", tokenizer="tokenizer.json")


def test_micro_batches_are_refused(tmp_path):
    config = small_config(tmp_path)
    with config.unlocked():
        config.train.micro_batches = 2
    with pytest.raises(ValueError, match=r"objective\.parts"):
        train(config, tmp_path / "run", console=Console(quiet=True))
