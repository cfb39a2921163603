"""`evaluate --task=text`: numbers by perspective and language, beside baselines."""

import dataclasses
import json

import numpy as np
import pytest
from rich.console import Console

from configs import base
from configs import text_pairs as config_file
from umair_jax.encoding import text_model
from umair_jax.evaluate_text import NGRAMS, UNTRAINED, evaluate_text


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    words = {"cat": "chat", "house": "maison", "tree": "arbre", "sun": "soleil"}
    lines = [
        {"perspective": "multilingual", "text_a": f"{en} {i}", "lang_a": "en",
         "text_b": f"{fr} {i}", "lang_b": "fr"}
        for i in range(60) for en, fr in words.items()
    ]  # fmt: skip
    lines += [
        {"perspective": "relation", "text_a": f"kind {i}", "text_b": f"sort {i}"} for i in range(60)
    ]
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    config = config_file.get_config()
    with config.unlocked():
        config.data.limit = 40
        config.data.root = str(folder / "data")
        config.pairs.path = str(path)
        config.pairs.catalogue = ("artist_tags",)
        config.pairs.fractions = (0.6, 0.2, 0.2)
    quiet = Console(quiet=True)
    model = text_model.read("builtin")
    (folder / "shy").mkdir()
    shy = {name: array * np.float16(0.5) for name, array in model.arrays.items()}
    text_model.write(dataclasses.replace(model, arrays=shy), folder / "shy")
    places = ("builtin", str(folder / "shy"))
    return folder, evaluate_text(config, folder / "run", places, console=quiet), config


def test_every_encoder_has_numbers_for_every_perspective(measured):
    folder, summary, _ = measured
    assert json.loads((folder / "run" / "summary.json").read_text("utf-8")) == summary
    assert summary["encoders"] == ["builtin", "shy", UNTRAINED, NGRAMS]
    assert summary["builtin"] != summary["shy"]
    for name in summary["encoders"]:
        for perspective in ("multilingual", "relation"):
            values = summary[name][perspective]
            assert set(values) == {"recall_at_1", "recall_at_10", "mrr"}
            assert 0 <= values["recall_at_1"] <= values["mrr"] <= 1
        assert "explanation" not in summary[name]
    assert [(line["from"], line["to"]) for line in summary["languages"]] == [("en", "fr")]
    assert np.isfinite(summary["builtin"]["uniformity"])
    assert summary["builtin"]["unknown_tokens"] == 0


def test_nearest_texts_are_others_of_the_held_out_ones(measured):
    _, summary, _ = measured
    assert {line["language"] for line in summary["nearest"]} == {"en", "fr"}
    for line in summary["nearest"]:
        assert len(line["nearest"]) == 3
        assert line["text"] not in line["nearest"]


def test_character_ngrams_find_what_is_spelled_alike(measured):
    _, summary, _ = measured
    assert summary[NGRAMS]["relation"]["recall_at_1"] > 0.5  # the number is in both


def test_what_does_not_fit_is_refused(measured, tmp_path):
    _, _, config = measured
    with pytest.raises(ValueError, match="expected pairs"):
        evaluate_text(base.get_config(), tmp_path)
    with pytest.raises(ValueError, match="text model: got 'nowhere', expected a folder"):
        evaluate_text(config, tmp_path, ("nowhere",), console=Console(quiet=True))
    for place in ("builtin", str(tmp_path / "untrained")):
        with pytest.raises(ValueError, match="is taken; rename the folder"):
            evaluate_text(config, tmp_path, ("builtin", place), console=Console(quiet=True))
