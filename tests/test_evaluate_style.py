"""`evaluate --task=style` from the command line to the numbers, on made-up shapes."""

import collections
import contextlib
import dataclasses
import io
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pytest
import shapes
from absl import flags
from PIL import Image
from rich.console import Console

from configs import smoke
from umair_jax import evaluate, results, settings
from umair_jax.data.images import load_square
from umair_jax.data.sources import openclipart
from umair_jax.encoding import ExtractConfig
from umair_jax.encoding import images as image_encoding
from umair_jax.evaluate_style import FIGURE, REPORT, evaluate_style
from umair_jax.models import weights
from umair_jax.models.image_encoder import ImageEncoder
from umair_jax.models.initialise import HostDraws
from umair_jax.probes import figure, pictures, report
from umair_jax.probes.style import ProbeConfig, probe, standardised

SMOKE = Path(__file__).resolve().parents[1] / "configs" / "smoke.py"
TINY = {"image_batch": 16, "calibration_images": 16, "decode_threads": 1}
OPTIONS = ("--queries=24", "--limit_concepts=12")
VECTORS = ("style", "content", "both", "colour_histogram", "pixels")
STYLE, CONCEPT = "same_style_precision_at_10", "same_concept_hit_at_10"
ARTIST = "same_artist_precision_at_10"


def quiet():
    return Console(file=io.StringIO(), width=120)


def command(*arguments):
    """The exit status of ``python -m umair_jax.evaluate`` with these arguments."""
    before = set(flags.FLAGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["evaluate", *arguments])
        evaluate.define_flags()
        try:
            settings.run_front_door(evaluate.main)
        except SystemExit as left:
            return left.code or 0
        finally:
            for name in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()


def config_of(**extract):
    config = smoke.get_config()
    with config.unlocked():
        config.extract.update(TINY | extract)
    return config


def extract_config(**changes):
    section = config_of(**changes).extract
    return settings.build(ExtractConfig, section)


@pytest.fixture(scope="module", autouse=True)
def _few_drawings():
    """The built-in drawings of the artists with 10 to 15 of them alone."""
    table = openclipart.catalogue()
    count = collections.Counter(names := table["artist"].to_pylist())
    few = table.filter(pa.array([bool(name) and 10 <= count[name] <= 15 for name in names]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openclipart, "catalogue", lambda: few)
        yield


@pytest.fixture(scope="module", autouse=True)
def _fast(compiled_once):
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return shapes.write(tmp_path_factory.mktemp("data") / "shapes.parquet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights of another seed, which stand for trained ones."""
    model = ImageEncoder(extract_config().image, rngs=HostDraws(7))
    path = tmp_path_factory.mktemp("weights") / "image.safetensors"
    weights.save(model, path)
    return path


@dataclasses.dataclass
class Run:
    workdir: Path
    output: str
    summary: dict


@pytest.fixture(scope="module")
def run(path, trained, tmp_path_factory):
    """The whole command with weights, as a user calls it."""
    workdir, output = tmp_path_factory.mktemp("run") / "style", io.StringIO()
    arguments = [f"--config.extract.{name}={value}" for name, value in TINY.items()]
    with contextlib.redirect_stdout(output):
        status = command("--task=style", f"--data={path}", f"--config={SMOKE}", *arguments,
                         f"--weights={trained}", f"--workdir={workdir}", *OPTIONS)  # fmt: skip
    assert status == 0
    return Run(workdir, output.getvalue(), json.loads((workdir / results.SUMMARY).read_text()))


# The whole command ------------------------------------------------------------------------------


def test_the_summary_has_every_number(run):
    summary = run.summary
    assert (summary["task"], summary["main_encoder"]) == ("style", "trained")
    both = {STYLE, CONCEPT, f"{STYLE}_half_width", f"{CONCEPT}_half_width"}
    artist = {ARTIST, f"{ARTIST}_half_width"}
    for keys, names, part in (
        (both, VECTORS, summary),
        (both, VECTORS, summary["standardised"]),
        (both, VECTORS, summary["moved"]),
        (both, VECTORS, summary["moved"]["standardised"]),
        (both, VECTORS[:3], summary["untrained"]),
        (both, VECTORS[:3], summary["untrained"]["standardised"]),
        (both, VECTORS[:3], summary["untrained"]["moved"]),
        (artist, VECTORS, summary["artists"]),
        (artist, VECTORS, summary["artists"]["standardised"]),
        (artist, VECTORS[:3], summary["untrained"]["artists"]),
    ):
        for name in names:
            assert set(part[name]) == keys
            assert all(0 <= value <= 1 for value in part[name].values())
    assert summary["chance"][STYLE] == pytest.approx(11 / 33)
    assert summary["chance"][CONCEPT] == pytest.approx(1 - (14 * 13) / (24 * 23))
    assert 0 < summary["chance"][ARTIST] < 0.5
    assert summary["queries"][STYLE] == 24
    assert summary["queries"][ARTIST] == summary["pictures"]["artists"] > 100
    assert summary["pictures"]["styles"] == 36
    assert summary["labels"] == {"concept": 12, "style": 3, "group": 2, "artist": 12}
    assert summary["style"] != summary["untrained"]["style"]


def test_the_numbers_make_sense(run):
    """The three styles differ in colour, so colours find them, wherever a shape is."""
    for part in (run.summary, run.summary["moved"]):
        assert part["colour_histogram"][STYLE] > 0.9
    assert run.summary["pixels"][CONCEPT] > run.summary["moved"]["pixels"][CONCEPT]
    assert run.summary["untrained"]["style"][STYLE] > run.summary["chance"][STYLE]


def test_tables_and_report_show_the_summary(run):
    written = (run.workdir / REPORT).read_text("utf-8")
    for text in (run.output, written):
        for part in ("trained encoder", "untrained encoder", "no network", "at random"):
            assert part in text
        for values in (run.summary["moved"]["standardised"]["both"], run.summary["pixels"]):
            cells = [f"{values[q]:.3f} ± {values[q + '_half_width']:.3f}" for q in (STYLE, CONCEPT)]
            assert any(all(cell in line for cell in cells) for line in text.splitlines())
        value = run.summary["untrained"]["artists"]["content"][ARTIST]
        assert f"{value:.3f} ± " in text
    assert pictures.MOVES in written
    assert pictures.MOVES in " ".join(run.output.split())
    assert f"]({FIGURE})" in written
    assert all(len(line) <= 80 for line in run.output.splitlines())


def test_the_figure_shows_queries_and_neighbours(run):
    with Image.open(run.workdir / FIGURE) as page:
        shown = np.asarray(page.convert("RGB"))
    green, red = (np.all(shown == colour, axis=-1).sum() for colour in (figure._RIGHT,
                                                                       figure._WRONG))  # fmt: skip
    frame = (figure._TILE + 2 * figure._FRAME) ** 2 - figure._TILE**2
    assert (green + red) / frame == 2 * figure.QUERIES * figure.SHOWN
    assert green > 0
    assert red > 0


def test_without_weights_and_without_drawings(path, tmp_path, monkeypatch):
    def gone():
        raise FileNotFoundError("openclipart.parquet")

    monkeypatch.setattr(openclipart, "catalogue", gone)
    console, options = quiet(), ProbeConfig(queries=12, limit_concepts=11, draws=10)
    summary = evaluate_style(config_of(), str(path), tmp_path, options, console=console)
    assert (summary["main_encoder"], summary["weights"]) == ("untrained", "")
    for name in VECTORS[:3]:
        assert summary[name] == summary["untrained"][name]
        assert summary["moved"][name] == summary["untrained"]["moved"][name]
    assert "artists" not in summary
    assert "No artists: openclipart.parquet" in console.file.getvalue()
    again = evaluate_style(config_of(), str(path), tmp_path, options, console=console)
    assert {**again, "seconds": 0} == {**summary, "seconds": 0}
    with pytest.raises(FileNotFoundError):
        evaluate_style(config_of(), "openclipart", tmp_path, options, console=console)


def test_the_built_in_drawings_alone(tmp_path, trained):
    options = ProbeConfig(limit_concepts=10, untrained=False, draws=10)
    config = config_of(image_weights=str(trained))
    summary = evaluate_style(config, "openclipart", tmp_path, options, console=quiet())
    assert set(VECTORS) <= set(summary["artists"])
    assert not {"untrained", "moved", "style"} & set(summary)
    assert "same artist" in (tmp_path / REPORT).read_text("utf-8")
    assert (tmp_path / FIGURE).exists()


def test_weights_say_which_network_they_are_for(path, tmp_path):
    image = dataclasses.replace(extract_config().image, base_width=2, pre_activation=True)
    weights.save(
        ImageEncoder(image, rngs=HostDraws(1)),
        tmp_path / "weights.safetensors",
        metadata={"config": json.dumps({"base_width": 2, "pre_activation": True})},
    )
    config, console = config_of(), quiet()
    assert config.extract.image.base_width == 4
    options = ProbeConfig(queries=6, limit_concepts=10, untrained=False, draws=0)
    summary = evaluate_style(config, str(path), tmp_path, options,
                             str(tmp_path / "weights.safetensors"), console)  # fmt: skip
    assert summary["main_encoder"] == "trained"
    said = console.file.getvalue()
    assert "base_width: 2 as in " in said
    assert "not False as in config.extract.image" in " ".join(said.split())


# What is measured -------------------------------------------------------------------------------


def test_broken_pictures_are_counted_and_left_out(path):
    source = pictures.read_styles(path)
    broken = dataclasses.replace(source, images=[b"broken", None, *source.images[2:]])
    found = probe(broken, extract_config(), ProbeConfig(draws=0), quiet())
    assert len(found.pictures) == len(found.queries) == 34
    assert found.pictures.dropped == {"without a picture that can be decoded": 2}
    assert found.pictures.images == source.images[2:]
    assert "Left out: 2 pictures without" in report.markdown({"styles": found}, {}, "a.png")
    for images in ([b"broken"] * 36, [*source.images[:20], *[None] * 16]):
        with pytest.raises(ValueError, match=r"got \d+ of 36 that are missing or cannot be"):
            probe(dataclasses.replace(source, images=images), extract_config(),
                  ProbeConfig(draws=0), quiet())  # fmt: skip


def test_the_vectors_are_those_of_extraction(path):
    source, config = pictures.read_styles(path), extract_config()
    found = probe(source, config, ProbeConfig(queries=6, draws=0), quiet())
    model = image_encoding.build(source, range(36), config)
    size = config.image.image_size
    batch = np.stack([load_square(data, size) for data in source.images[:16]])
    content, style = image_encoding.FrozenImageEncoder(config, model).start(batch)
    np.testing.assert_allclose(found.vectors["content"][:16], content, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.vectors["style"][:16], style, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("log_style", [True, False])
def test_channels_are_standardised_over_the_candidates(log_style):
    rng = np.random.default_rng(0)
    candidates = {
        "style": np.exp(rng.normal(3, 2, (400, 5))).astype(np.float32),
        "content": rng.normal(5, 3, (400, 7)).astype(np.float32),
    }
    candidates["content"][:, 2] = 4  # a dead channel
    candidates["both"] = np.zeros((400, 12), np.float32)
    queries = {name: vectors[:20] + 1 for name, vectors in candidates.items()}
    asked, there = standardised(queries, candidates, log_style)
    for name, deviation in (("style", 1), ("content", [1, 1, 0, 1, 1, 1, 1])):
        np.testing.assert_allclose(there[name].mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(there[name].std(0), deviation, atol=1e-5)
    raw = np.log(candidates["style"]) if log_style else candidates["style"]
    shifted = np.log(queries["style"]) if log_style else queries["style"]
    expected = (shifted - raw.mean(0)) / raw.std(0)
    np.testing.assert_allclose(asked["style"], expected, rtol=1e-3, atol=1e-4)
    assert there["both"].shape == (400, 12)
    np.testing.assert_allclose((there["both"][:, :5] ** 2).sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose((there["both"][:, 5:] ** 2).sum(1), 1, rtol=1e-5)


def test_queries_of_the_figure_are_spread(path):
    rows = figure.choose(source := pictures.read_styles(path), seed=0)
    labels = {name: codes[rows] for name, codes in source.labels.items()}
    assert len(set(labels["concept"])) == len(rows) == 10
    assert sorted(np.bincount(labels["style"])) == [3, 3, 4]
    assert sorted(np.bincount(labels["group"])) == [5, 5]
    assert figure.choose(source, seed=1).tolist() != rows.tolist()


# Mistakes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--task=style",), "--data: got nothing; expected a parquet file, or openclipart"),
        (("--task=style", "--data=/nowhere"), "which is no file; expected a parquet file with"),
        (
            ("--task=styles",),
            "--task=styles: value should be one of <run|weights|newcomers|style|text>",
        ),
        (("--task=style", "--data=a", "--queries=-1"), "queries: got -1, expected 0 or more"),
        (("--data=a",), "--data: got it with --task=run; expected --task=style"),
        (("--task=style", "--checkpoint=3"), "--checkpoint: got it with --task=style; expected"),
        (("--task=text", "--data=a"), "--data: got it with --task=text; expected --task=style"),
        (("--task=text", "--weights=a"), "--config: cannot be read: configs/base.py"),
        ((), "--workdir: got nothing; expected the folder of a run"),
        (("a",), "got ['a']; expected flags only"),
    ],
)
def test_a_mistake_ends_in_one_line(arguments, said, tmp_path, capsys):
    with contextlib.chdir(tmp_path):
        config = (f"--config={SMOKE}",) if "--task=style" in arguments else ()
        assert command(*arguments, *config) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert not list(tmp_path.iterdir())


def test_a_config_without_an_encoder_is_refused(path, tmp_path):
    config = config_of()
    with config.unlocked():
        del config.extract
    with pytest.raises(ValueError, match=r"got the sections .*data.*; expected extract, as in"):
        evaluate_style(config, str(path), tmp_path / "none", console=quiet())
    assert not (tmp_path / "none").exists()


def test_weights_that_do_not_fit_are_an_error(path, trained, tmp_path):
    config = config_of()
    config.extract.image.base_width = 8
    with pytest.raises(ValueError, match="weights do not fit"):
        evaluate_style(config, str(path), tmp_path, weights=str(trained), console=quiet())
