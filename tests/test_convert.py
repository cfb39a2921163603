"""The front door for weights: what it writes, prints and refuses."""

import dataclasses
import io
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from rich.console import Console
from safetensors.numpy import save_file

from configs import base
from tests.backbones import entries, golden, relative_error
from umair_jax import convert, settings
from umair_jax.convert_image import convert_image, timm_lines
from umair_jax.encoding import ExtractConfig
from umair_jax.encoding import images as image_encoding
from umair_jax.interop import resnet
from umair_jax.models import weights
from umair_jax.models.image_encoder import ImageEncoder, ImageEncoderConfig
from umair_jax.models.initialise import HostDraws


class NoPictures:
    def image_bytes(self, row):
        return None


@pytest.fixture
def source(tmp_path):
    """Torch's small network of the usual widths, with a classifier."""
    path = tmp_path / "torch.safetensors"
    save_file(entries("torch_resnet") | {"fc.weight": np.zeros((5, 128), np.float32)}, path)
    return path


def run(source, target, **options):
    said = io.StringIO()
    found = convert_image(source, target, console=Console(file=said, width=90), **options)
    return found, said.getvalue()


def test_converted_weights_give_the_vectors_of_torch(tmp_path, source):
    target = tmp_path / "encoder.safetensors"
    found, said = run(source, target)
    for words in (
        "timm or torchvision",
        "2, 1, 2, 1",
        "16, 32, 64, 128 channels",
        f"{found.parameters:,}",
        "1, classifier: fc.weight",
        "see their model card",
    ):
        assert words in said
    cfg = ImageEncoderConfig(base_width=4, blocks=(2, 1, 2, 1), image_size=64)
    encoder = ImageEncoder(cfg, rngs=HostDraws(0))
    weights.load(encoder, target)
    reference = golden("torch_resnet")
    vectors = encoder(jnp.asarray(reference["x"].transpose(0, 2, 3, 1)))
    assert relative_error(vectors.content, reference["y/5"].mean((2, 3))) < 1e-4
    assert weights.read_metadata(target)["source"] == "timm or torchvision"


def test_the_printed_lines_are_lines_of_a_config(tmp_path, source):
    found, said = run(source, tmp_path / "encoder.safetensors")
    lines = [line.strip() for line in said.splitlines() if line.startswith("    config.")]
    config = base.get_config()
    exec("\n".join(lines), {"config": config})
    given = config.extract.image.to_dict()
    assert {name: given[name] for name in found.settings} == found.settings
    assert config.extract.image_weights == str(tmp_path / "encoder.safetensors")
    # On top of the default config, whose own encoder has heads with weights, they are all it takes.
    extract = settings.build(ExtractConfig, config.extract)
    encoder = image_encoding.build(NoPictures(), [], extract)
    stem = weights.flatten(encoder)["backbone/conv1/kernel"]
    np.testing.assert_array_equal(stem, found.arrays["backbone/conv1/kernel"])
    cfg = settings.build(ImageEncoderConfig, config.extract.image)
    assert cfg.resnet == dataclasses.replace(found.config, last_gamma=cfg.last_gamma)
    assert (cfg.content_stage, cfg.image_size, cfg.std) == (4, 224, (0.229, 0.224, 0.225))


def test_what_else_an_encoder_has_is_not_lost_unnoticed(tmp_path, source):
    target = tmp_path / "encoder.safetensors"
    run(source, target)
    weights.write(weights.read(target) | {"head/bias": np.zeros(3, np.float32)}, target)
    with pytest.raises(ValueError, match=r"more than a backbone \(head/bias\), which would"):
        run(target, tmp_path / "again.safetensors", dtype="float16")
    assert not (tmp_path / "again.safetensors").exists()
    _, said = run(target, tmp_path / "timm.safetensors", to="timm")
    assert "1, not of the backbone: head/bias" in said


def test_half_precision_and_back_to_timm(tmp_path, source):
    half, back = tmp_path / "half.safetensors", tmp_path / "timm.safetensors"
    run(source, half, dtype="float16")
    assert half.stat().st_size < 0.6 * source.stat().st_size
    _, said = run(half, back, to="timm")
    assert "umair_jax" in said
    assert "load_state_dict of a network of the same widths" in said
    found = weights.read(back)
    given = {k: v for k, v in entries("torch_resnet").items() if "num_batches" not in k}
    assert set(found) == set(given)
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array.astype(np.float16))


def test_timms_own_name_is_told_where_it_has_one():
    config = resnet.ResNetConfig(depth=50, epsilon=1e-3)
    found = resnet.ResNetWeights("umair_jax", config, {}, {}, {})
    (line,) = timm_lines(found, "x.safetensors")
    assert 'create_model("resnet50", num_classes=0, checkpoint_path="x.safetensors"' in line
    assert "eps=0.001" in line


def command(*arguments):
    """The exit status of ``python -m umair_jax.convert`` with these arguments."""
    before = set(flags.FLAGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["convert", *map(str, arguments)])
        convert.define_flags()
        try:
            settings.run_front_door(convert.main)
        except SystemExit as left:
            return left.code or 0
        finally:
            for name in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()


def test_the_command(tmp_path, source, capsys):
    target = tmp_path / "encoder.safetensors"
    assert not command(f"--input={source}", f"--output={target}", "--dtype=bfloat16")
    assert f"Wrote {target}" in capsys.readouterr().out
    assert weights.read(target)["backbone/bn1/mean"].dtype.name == "bfloat16"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output=x.safetensors"], "--input: got nothing"),
        (["--input=x.safetensors"], "--output: got nothing"),
        (["--input={0}", "--output={0}"], "--output: got the input"),
        (["--input={0}", "--output={1}.npz"], "expected a name like new.safetensors"),
        (["--input={0}", "--output={1}/a/b.safetensors"], "got no folder"),
        (["--input={0}", "--output={1}.safetensors", "--to=keras"], "--to: got 'keras'"),
        (["--input={0}", "--output={1}.safetensors", "--dtype=int8"], "dtype: got 'int8'"),
        (["--input={1}.onnx", "--output={1}.safetensors"], r"named *.onnx, expected one of"),
        (["--input={0}", "--output={1}.safetensors", "more"], "arguments: got ['more']"),
        (["--input=.", "--output={1}"], "text model: got"),
        (["--input=builtin", "--output=."], "which is there; expected a new folder"),
        (["--input=builtin", "--output={1}/a/b"], "got no folder"),
        (["--input=builtin", "--output={1}", "--to=timm"], "--to: got 'timm', expected one of"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path, source, capsys, arguments, words):
    assert command(*(a.format(source, tmp_path / "new") for a in arguments)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert words in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == [source]
