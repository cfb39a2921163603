import json

import pytest

from umair_jax.training.record import CONFIG_FILE, check_config, write_config

CONFIG = {
    "train": {"steps": 10, "batch_size": 4, "seed": 0},
    "optim": {"name": "adam", "betas": (0.9, 0.99)},
    "checkpoint": {"keep": 2, "best_metric": "valid/auc"},
    "tables": {},
}


def changed(section, **values):
    return CONFIG | {section: CONFIG[section] | values}


def test_the_record(tmp_path):
    workdir = tmp_path / "new" / "run"
    write_config(workdir, CONFIG)
    record = json.loads((workdir / CONFIG_FILE).read_text())
    assert record["config"]["optim"] == {"name": "adam", "betas": [0.9, 0.99]}
    assert {"python", "jax", "umair_jax", "numpy"} <= record["versions"].keys()
    assert record["devices"]["platform"] == "cpu"
    assert record["devices"]["hosts"] == 1
    assert [path.name for path in workdir.iterdir()] == [CONFIG_FILE]


def test_the_same_configuration_goes_on(tmp_path):
    check_config(tmp_path, CONFIG)
    write_config(tmp_path, CONFIG)
    check_config(tmp_path, CONFIG)
    check_config(tmp_path, json.loads(json.dumps(CONFIG)))


def test_other_data_are_refused_by_name(tmp_path):
    check_config(tmp_path, CONFIG, {"data set": "a"})
    write_config(tmp_path, CONFIG, {"data set": "a", "feature bank": "b"})
    check_config(tmp_path, CONFIG, {"data set": "a", "feature bank": "b"})
    with pytest.raises(ValueError, match="a run on other data: feature bank changed since it"):
        check_config(tmp_path, CONFIG, {"data set": "a", "feature bank": "c"})
    with pytest.raises(ValueError, match="data set and feature bank changed"):
        check_config(tmp_path, CONFIG, {"data set": "x", "feature bank": "c"})


def test_length_and_rhythm_may_change(tmp_path):
    write_config(tmp_path, CONFIG)
    check_config(tmp_path, changed("train", steps=99, eval_every_steps=3))
    check_config(tmp_path, changed("checkpoint", keep=9))
    check_config(tmp_path, CONFIG | {"log": {"progress": False}})


def test_every_other_difference_is_listed(tmp_path):
    write_config(tmp_path, CONFIG)
    now = changed("train", seed=1) | {"optim": {"name": "sgd", "betas": [0.9, 0.99]}}
    with pytest.raises(ValueError, match="another configuration") as error:
        check_config(tmp_path, now | {"model": {"width": 3}})
    lines = [line for line in str(error.value).splitlines() if line.startswith("  ")]
    assert lines == [
        "  model.width: '(absent)' in the run, 3 now",
        "  optim.name: 'adam' in the run, 'sgd' now",
        "  train.seed: 0 in the run, 1 now",
    ]
    # What the best state is measured by stays, for the values would not compare.
    with pytest.raises(ValueError, match=r"checkpoint\.best_metric: "):
        check_config(tmp_path, changed("checkpoint", best_metric="valid/gauc"))
    check_config(tmp_path, now, may_change=("train", "optim"))
    # A key is no section: `train.steps` frees neither `train` nor `train.steps_more`.
    with pytest.raises(ValueError, match="steps_more"):
        check_config(tmp_path, changed("train", steps_more=1))
