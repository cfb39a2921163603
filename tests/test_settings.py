import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import config_path

from umair_jax import settings
from umair_jax.settings import as_json, build
from umair_jax.training.settings import FitConfig, TrainConfig
from umair_jax.training.sharding import MeshConfig
from umair_jax.training.table_optimisers import TableOptimConfig


@dataclasses.dataclass(frozen=True)
class Layer:
    width: int = 8
    rate: float = 0.1


@dataclasses.dataclass(frozen=True)
class Model:
    name: str
    layer: Layer = dataclasses.field(default_factory=Layer)
    layers: tuple[Layer, ...] = ()
    widths: tuple[int, ...] = (4,)
    size: tuple[int, str] = (1, "a")
    steps: int | None = None
    bias: bool = True
    extra: Layer | None = None
    rules: tuple[Any, ...] = ()
    by_name: Layer | Mapping[str, Layer] = dataclasses.field(default_factory=Layer)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.name == "bad":
            raise ValueError("unknown name 'bad'; allowed: good")


def test_sections_become_dataclasses():
    config = ConfigDict({"name": "good", "layer": {"width": 3}, "layers": [{"rate": 1}, {}]})
    model = build(Model, config)
    assert model == Model("good", Layer(3), (Layer(rate=1.0), Layer()))
    assert isinstance(model.layers[0].rate, float)


def test_everything_is_hashable():
    section = {"name": "good", "widths": [1, 2], "rules": [["a", [["x", "y"], None]], ["", []]]}
    model = build(Model, section)
    assert model.widths == (1, 2)
    assert model.rules == (("a", (("x", "y"), None)), ("", ()))
    hash((model.widths, model.rules, model.layers))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"nam": "x"}, r"config: unknown key 'nam'; did you mean 'name'\?"),
        ({"name": "x", "layer": {"widht": 2}}, r"config\.layer: unknown key 'widht'.*'width'"),
        ({"name": "x", "zzz": 1}, "unknown key 'zzz'; expected one of name, layer, "),
        ({"layer": {}}, "config: missing name; expected by Model"),
        ({"name": "bad"}, "config: unknown name 'bad'; allowed: good"),
        ({"name": 3}, r"config\.name: got 3 \(int\), expected str"),
        ({"name": None}, r"config\.name: got None \(NoneType\), expected str"),
        ({"name": "x", "bias": 1}, r"config\.bias: got 1 \(int\), expected bool"),
        ({"name": "x", "layer": {"width": 2.0}}, r"config\.layer\.width: got 2.0 \(float\)"),
        ({"name": "x", "layer": {"width": True}}, r"config\.layer\.width: got True \(bool\)"),
        ({"name": "x", "layer": {"rate": "1"}}, r"config\.layer\.rate: got '1' \(str\)"),
        ({"name": "x", "layer": 3}, r"config\.layer: got 3 \(int\), expected Layer"),
        ({"name": "x", "layers": [{}, {"w": 1}]}, r"config\.layers\[1\]: unknown key 'w'"),
        ({"name": "x", "layers": [3]}, r"config\.layers\[0\]: got 3 \(int\), expected Layer"),
        ({"name": "x", "widths": [1, "2"]}, r"config\.widths\[1\]: got '2' \(str\), expected int"),
        ({"name": "x", "widths": 5}, r"config\.widths: got 5 \(int\), expected tuple"),
        ({"name": "x", "widths": "12"}, r"config\.widths: got '12' \(str\), expected tuple"),
        ({"name": "x", "size": [1]}, r"config\.size: got \[1\], expected 2 entries"),
        ({"name": "x", "steps": "12"}, r"steps: got '12' \(str\), expected int or None$"),
        ({"name": "x", "extra": 1}, r"config\.extra: got 1 \(int\), expected Layer or None$"),
        ({"name": "x", "counts": {"a": "b"}}, r"config\.counts\.a: got 'b'"),
    ],
)
def test_mistakes_are_named(section, message):
    with pytest.raises(ValueError, match=message):
        build(Model, section)


def test_unions():
    assert build(Model, {"name": "x", "steps": None}).steps is None
    assert build(Model, {"name": "x", "steps": 5}).steps == 5
    assert build(Model, {"name": "x", "extra": {"width": 2}}).extra == Layer(2)
    assert build(Model, {"name": "x", "by_name": {"width": 2}}).by_name == Layer(2)
    assert build(Model, {"name": "x", "by_name": {}}).by_name == Layer()
    named = build(Model, {"name": "x", "by_name": {"wide": {"width": 2}, "deep": {}}}).by_name
    assert named == {"wide": Layer(2), "deep": Layer()}
    with pytest.raises(ValueError, match="did you mean 'width'"):
        build(Model, {"name": "x", "by_name": {"widht": 2}})


def test_the_configuration_of_a_run():
    config = build(
        FitConfig,
        {
            "train": {"steps": 10, "epochs": None},
            "mesh": {"model": 2, "rules": [["tables", [["data", "model"]]], ["", []]]},
            "tables": {"embedding": {"name": "adam"}, "wide": {"learning_rate": 1}},
        },
    )
    assert config.train == TrainConfig(steps=10)
    assert config.mesh.rules == (("tables", (("data", "model"),)), ("", ()))
    assert config.tables == {
        "embedding": TableOptimConfig("adam"),
        "wide": TableOptimConfig(learning_rate=1.0),
    }
    with pytest.raises(ValueError, match=r"config\.train: give either train.steps or train.epochs"):
        build(FitConfig, {"train": {}})
    # What is written into the record builds the same configuration again.
    again = as_json(ConfigDict(dataclasses.asdict(config)))
    assert build(FitConfig, again) == config
    assert build(FitConfig, dataclasses.asdict(config)) == config
    assert MeshConfig() == build(MeshConfig, {})


def test_as_json_knows_only_what_json_knows():
    config = ConfigDict({"a": (1, 2), "b": {"c": None, "d": "x"}})
    assert as_json(config) == {"a": [1, 2], "b": {"c": None, "d": "x"}}
    with pytest.raises(TypeError):
        as_json(ConfigDict({"a": object()}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": None}, "got None and None"),
        ({"epochs": 1.0}, "got 3 and 1.0"),
        ({"steps": 0}, "got 0 and None; set the other one to 0"),
        ({"steps": -3}, "nothing to train"),
        ({"steps": None, "epochs": -0.5}, "nothing to train"),
        ({"batch_size": 0}, "train.batch_size must be 1 or more, got 0"),
        ({"log_every_steps": 0}, "train.log_every_steps"),
        ({"eval_every_steps": -1}, "train.eval_every_steps must be 0 or more, got -1"),
        ({"seed": -1}, "train.seed"),
        ({"read_threads": -1}, "train.read_threads"),
    ],
)
def test_training_mistakes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**({"steps": 3} | change))


def test_length_of_a_run():
    assert TrainConfig(steps=7).total_steps(examples=10) == 7
    assert TrainConfig(batch_size=4, epochs=1.0).total_steps(10) == 3
    assert TrainConfig(batch_size=4, epochs=0.5).total_steps(16) == 2
    assert TrainConfig(batch_size=4, epochs=0.5, steps=0).total_steps(16) == 2
    assert TrainConfig(epochs=0.0, steps=7).total_steps(16) == 7
    with pytest.raises(ValueError, match="early_stop_evals needs"):
        FitConfig(TrainConfig(steps=1, early_stop_evals=2))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("configs/base.py", "base"),
        ("/a.b/mine.v2.py", "mine.v2"),
        ("configs/baselines.py:deepfm,sparse", "baselines-deepfm-sparse"),
        ("configs/ablations.py:modalities=content+text", "ablations-modalities=content+text"),
        ("configs/paper_table.py:movielens:cold_item", "paper_table-movielens-cold_item"),
        ("configs/x.py:../../up", "x-up"),
    ],
)
def test_variants_of_a_config_have_runs_of_their_own(file, name):
    assert settings.run_name(file) == name


def front_door(monkeypatch, error=None, arguments=()):
    def main(argv):
        assert argv[1:] == list(arguments)
        if error:
            raise error

    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    with pytest.raises(SystemExit) as left:
        settings.run_front_door(main)
    return left.value.code


def test_front_door(monkeypatch, capsys):
    assert not front_door(monkeypatch, arguments=["a", "b"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("got 3, expected 4"),
        FileNotFoundError("no bank in /x"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(error, monkeypatch, capsys):
    assert front_door(monkeypatch, error) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert str(error).splitlines()[-1] in said


@pytest.mark.parametrize(
    ("key", "hint"),
    [("batch_sise", "did you mean 'batch_size'?"), ("zzz", "the keys are those of the config")],
)
def test_an_unknown_config_key_is_named(key, hint, monkeypatch, capsys):
    config = ConfigDict({"batch_size": 3}).lock()
    # What config_flags does with --config.KEY=1 while flags are parsed.
    monkeypatch.setattr(settings.flags, "FLAGS", lambda argv: config_path.get_type(key, config))
    assert front_door(monkeypatch) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: unknown config key {key!r}; {hint}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("given", [True, False])
def test_a_misspelt_key_is_named_with_the_default_config_too(given, monkeypatch, capsys):
    values = flags.FlagValues()
    path = str(Path(__file__).parents[1] / "configs" / "smoke.py")
    named = [f"--config={path}"] if given else []
    arguments = [*named, "--config.trian.epochs=3"]
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    monkeypatch.setattr(settings.flags, "FLAGS", values)

    def define():
        config_flags.DEFINE_config_file("config", path, flag_values=values)

    with pytest.raises(SystemExit) as left:
        settings.run_front_door(lambda argv: None, define)
    assert left.value.code == 2
    assert "error: unknown config key 'trian'; did you mean 'train'?" in capsys.readouterr().err


def test_an_error_inside_a_config_is_told_without_its_traceback(monkeypatch, capsys, tmp_path):
    path = tmp_path / "strict.py"
    path.write_text("def get_config(arg):\n    raise ValueError('got %r, expected none' % arg)\n")
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    monkeypatch.setattr(settings.flags, "FLAGS", lambda argv: values([*argv, f"--config={path}:x"]))
    assert front_door(monkeypatch) == 2
    said = capsys.readouterr().err
    assert said.endswith("ValueError: got 'x', expected none\n")
    assert "File" not in said


def test_a_bug_in_a_config_file_is_not_a_misspelt_key(monkeypatch):
    config = ConfigDict({"batch_size": 3}).lock()
    monkeypatch.setattr(settings.flags, "FLAGS", lambda argv: config.batch_sise)
    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(AttributeError, match="batch_sise"):
        settings.run_front_door(lambda argv: None)


@pytest.mark.parametrize("error", [AttributeError("no attribute 'x'"), KeyError("x")])
def test_a_bug_keeps_its_traceback(error, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command"])

    def main(argv):
        raise error

    with pytest.raises(type(error)):
        settings.run_front_door(main)
