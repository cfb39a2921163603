"""End to end: the main job with encoders that learn from the bookmarks, and that come out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from tokenizers import Tokenizer

from umair_jax import encoding, hosts
from umair_jax.data import feature_bank, ranking_vectors
from umair_jax.data.batches import BatchSource
from umair_jax.data.dataset import Dataset
from umair_jax.data.item_batches import DistinctItemSource, EncoderInputs
from umair_jax.data.ranking import RankingData
from umair_jax.data.ranking_config import VECTORS
from umair_jax.data.tokenizer import encode_ragged
from umair_jax.encoding import ExtractConfig, pixels, text_model
from umair_jax.encoding.text_model import TextModel
from umair_jax.jobs import bookmarks, sections
from umair_jax.jobs.bookmarks import BookmarksJob
from umair_jax.jobs.sections import ExportConfig
from umair_jax.models import weights
from umair_jax.tasks.interactions import shape_of
from umair_jax.tasks.joint import JointConfig, JointTask
from umair_jax.training.sharding import make_mesh
from umair_jax.training.state import State, judged

WEIGHTS = "image_encoder.safetensors"


SECTIONS = {**bookmarks.SECTIONS, "joint": JointConfig, "export": ExportConfig}


@dataclasses.dataclass(frozen=True)
class JointJob(BookmarksJob):
    """Everything that a config stands for, short of the training itself.

    Attributes:
        task: The ranker with its encoders.
        words: The text encoder's tokenizer.
        exported: Options of what the run leaves.
    """

    task: JointTask
    words: Tokenizer
    exported: ExportConfig

    @property
    def source(self) -> BatchSource:
        """The training interactions, with what the encoders read of their items."""
        train = self.fit.train
        return DistinctItemSource(
            self.data.columns,
            self.task.encoder_inputs,
            train.batch_size,
            seed=train.seed,
            index=self.data.rows("train"),
            multiple=make_mesh(self.fit.mesh).shape["data"],
        )

    def export(self, workdir: Path, state: State, predict: Any) -> dict[str, Any]:
        """Writes the predictions for the test examples, and both encoders.

        They are what config.extract.image_weights (the file) and config.extract.text_weights (the
        folder) take.
        """
        summary = super().export(workdir, state, predict)
        if not hosts.is_first():
            return summary
        params, stats = judged(state)
        image, text = self.task.encoders(params["net"], stats)
        dtype, settings = self.exported.dtype, json.dumps(dataclasses.asdict(image.cfg))
        weights.save(image, workdir / WEIGHTS, dtype=dtype, metadata={weights.SETTINGS: settings})
        model = TextModel(text.cfg, weights.flatten(text), self.words, self.extract.max_tokens)
        text_model.write(model, workdir, dtype=dtype)
        return summary


def assemble(config: ConfigDict, console: Console) -> JointJob:
    """Checks a config and makes what it names, the data set and the bank first.

    Raises:
        ValueError: A key or value that is not known, or data that cannot be used.
    """
    made = sections.read(config, SECTIONS, plain=("model",))
    if made["train"].micro_batches != 1:
        raise ValueError(
            f"config.train.micro_batches: got {made['train'].micro_batches}, expected 1: the items "
            "of a batch are encoded together; use a smaller batch or "
            "config.extract.image.remat='block'"
        )
    sections.check_on_device(made["features"], "the vectors are made there")
    model = config.to_dict().get("model", {})
    # Mistakes come to light before the data are prepared and encoded.
    bookmarks.ranker(model, {})
    loaded = bookmarks.joined(made, console)
    extract: ExtractConfig = made["extract"]
    # The very weights that made the bank: random, builtin or of a file, calibrated and whitened.
    encoders = encoding.load(loaded.bank_dir, extract)
    task = JointTask(
        loaded.data,
        bookmarks.ranker(model, shape_of(loaded.data.schema)),
        _inputs(loaded.dataset, loaded.data, loaded.bank_dir, extract, encoders.words),
        encoders.image,
        encoders.text,
        made["features"],
        ranking_vectors.scales(feature_bank.load(loaded.bank_dir), made["features"]),
        made["joint"],
    )
    return JointJob(
        config,
        loaded.dataset,
        loaded.data,
        task,
        sections.fit_config(made),
        made["eval"],
        encoders.words,
        made["export"],
    )


def _inputs(
    dataset: Dataset, data: RankingData, folder: Path, config: ExtractConfig, words: Tokenizer
) -> EncoderInputs:
    """Pixels and tokens of the catalogue; the pixels are decoded once in every folder."""
    usable: np.ndarray = data.context["present"][:, VECTORS.index("content")]
    if hosts.team(folder).first:
        pixels.decode_all(dataset.pictures, usable, config, folder)
    hosts.barrier("decode the pictures")
    texts = [encoding.item_text(dataset.items, row, config) for row in range(len(usable))]
    return EncoderInputs(
        pixels.load(len(usable), config, folder), encode_ragged(words, texts, config.max_tokens)
    )
