"""Training of the image encoder: drawings, their tags, and the encoder that comes out."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from umair_jax import encoding, hosts, results
from umair_jax.data import image_tags as labels_of
from umair_jax.data import picture_batches
from umair_jax.data.batches import BatchSource
from umair_jax.data.dataset import Dataset
from umair_jax.data.image_tags import ImageTags, ImageTagsConfig
from umair_jax.data.picture_batches import PictureSource
from umair_jax.encoding import Decoded, ExtractConfig
from umair_jax.jobs import sections
from umair_jax.jobs.sections import DataConfig
from umair_jax.models import weights
from umair_jax.models.augment import AugmentConfig
from umair_jax.models.image_encoder import ImageEncoder, ImageEncoderConfig
from umair_jax.models.initialise import HostDraws
from umair_jax.models.layers import check_choice
from umair_jax.models.style import StyleConfig
from umair_jax.models.tagger import TaggerConfig
from umair_jax.tasks import image_tags
from umair_jax.tasks.image_tags import ImageTagsTask, ObjectiveConfig
from umair_jax.training import multi_label_metrics
from umair_jax.training.evaluation import Arrays, Evaluator
from umair_jax.training.settings import FitConfig
from umair_jax.training.state import State, judged

WEIGHTS, TAG_TABLE = "image_encoder.safetensors", "tags.jsonl"


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """How tags are judged.

    Attributes:
        batch_size: Pictures a batch, over all devices.
        threshold: From which probability on a tag counts as predicted, for F1.
        cutoffs: The k of precision@k.
    """

    batch_size: int = 64
    threshold: float = 0.5
    cutoffs: tuple[int, ...] = (1, 5)

    def __post_init__(self):
        if self.batch_size < 1 or not 0 < self.threshold < 1 or min(self.cutoffs, default=0) < 1:
            raise ValueError(
                f"eval: got {self}; expected batch_size of 1 or more, threshold between 0 and 1, "
                "cutoffs of 1 or more"
            )


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """What the run leaves: the trained network, read as it is going to be used.

    Attributes:
        dtype: How the encoder's weights are stored, see weights.DTYPES.
        image_size: Height and width of the pictures that it is to be used with, in pixels; 0 =
            those of the training.
        style: How it reads style. Another head than that of the training gets its statistics from
            the training drawings; it must have nothing to learn, so no projection.
        whiten_content: See ImageEncoderConfig; fitted to the training drawings.
        whiten_style: Likewise.
        whiten_shrinkage: Likewise.
    """

    dtype: str = "float32"
    image_size: int = 0
    style: StyleConfig = dataclasses.field(default_factory=StyleConfig)
    whiten_content: int = 0
    whiten_style: int = 0
    whiten_shrinkage: float = 1e-3

    def __post_init__(self):
        check_choice("export dtype", self.dtype, tuple(weights.DTYPES))
        if self.image_size < 0:
            raise ValueError(f"export image_size: got {self.image_size}, expected 0 or more")

    def encoder(self, trained: ImageEncoderConfig) -> ImageEncoderConfig:
        """The encoder that leaves.

        Raises:
            ValueError: Its style head would have to be trained and is not.
        """
        if self.style.projection and self.style != trained.style:
            raise ValueError(
                f"export style: got projection {self.style.projection} in a head that is not the "
                "one of model.image.style, expected 0; only what is trained can have one"
            )
        return dataclasses.replace(
            trained,
            image_size=self.image_size or trained.image_size,
            style=self.style,
            whiten_content=self.whiten_content,
            whiten_style=self.whiten_style,
            whiten_shrinkage=self.whiten_shrinkage,
        )


SECTIONS = {
    "data": DataConfig,
    "labels": ImageTagsConfig,
    "model": TaggerConfig,
    "objective": ObjectiveConfig,
    "augment": AugmentConfig,
    "eval": EvalConfig,
    "export": ExportConfig,
    **sections.COMMON,
}


@dataclasses.dataclass(frozen=True)
class ImageTagsJob:
    """Everything that a config stands for, short of the training itself.

    Attributes:
        config: The resolved config.
        dataset: The drawings.
        labels: Their tags.
        task: The encoder with its heads.
        fit: Options of the training.
        data: Options of the pictures.
        eval: Options of the evaluation.
        exported: Options of what the run leaves.
    """

    config: ConfigDict
    dataset: Dataset
    labels: ImageTags
    task: ImageTagsTask
    fit: FitConfig
    data: DataConfig
    eval: EvalConfig
    exported: ExportConfig

    @property
    def made_from(self) -> dict[str, str]:
        """The data set."""
        return {"data set": self.dataset.fingerprint}

    @functools.cached_property
    def source(self) -> BatchSource:
        """The training drawings."""
        return self.pictures["train"]

    @functools.cached_property
    def pictures(self) -> dict[str, PictureSource]:
        """The drawings of each part."""
        train = self.fit.train
        return {
            part: PictureSource(
                self.dataset,
                rows,
                train.batch_size if part == "train" else self.eval.batch_size,
                self.task.config.image.image_size,
                seed=train.seed,
                shuffle=part == "train",
                pixel_limit=self.data.pixel_limit,
            )
            for part, rows in self.labels.rows.items()
        }

    def evaluators(self) -> dict[str, Evaluator]:
        """Measures "valid" as the training goes, and both "valid" and "test" at its end."""
        options = self.eval
        return {
            part: image_tags.evaluator(
                self.pictures[part],
                self.labels,
                options.threshold,
                options.cutoffs,
                final_only=part == "test",
            )
            for part in results.PARTS
        }

    def measured(self, evals: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        """Metrics of both parts, and what the examples were."""
        labels = self.labels
        return {
            **{name: dict(evals[part]) for part, name in results.PARTS.items()},
            "drawings": {part: len(rows) for part, rows in labels.rows.items()},
            "tags": len(labels.names),
            "dropped_tags": labels.dropped_tags,
            "untagged_drawings": labels.untagged,
            "chance_map": {name: self._chance(part) for part, name in results.PARTS.items()},
        }

    def _chance(self, part: str) -> float:
        """Mean average precision of scores that know nothing: the mean share of a tag."""
        rows = self.pictures[part].column(picture_batches.ITEM)
        places = self.labels.tags[rows]
        shares = [(places == tag).any(1).mean() for tag in range(len(self.labels.names))]
        there = [share for share in shares if share > 0]
        return float(sum(there) / len(there)) if there else float("nan")

    def export(
        self, workdir: Path, state: State, predict: Callable[[BatchSource], Arrays]
    ) -> dict[str, Any]:
        """Writes the encoder without its heads, and a line for each tag.

        Returns:
            "bad_images": the pictures that could not be decoded.
        """
        test = self.pictures["test"]
        label, probability = image_tags.judged(test, self.labels, predict(test))
        bad = {"bad_images": self._bad_images()}
        if not hosts.is_first():
            return bad
        # Off the mesh: one host alone goes on with them.
        encoder = self._encoder(self.task.encoder(*jax.device_get(judged(state))))
        config = json.dumps(dataclasses.asdict(encoder.cfg))
        weights.save(
            encoder,
            workdir / WEIGHTS,
            dtype=self.exported.dtype,
            metadata={weights.SETTINGS: config},
        )
        rows = multi_label_metrics.table(
            self.labels.names, self.labels.counts, label, probability, self.eval.threshold
        )
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (workdir / TAG_TABLE).write_text("\n".join(lines) + "\n", "utf-8")
        return bad

    def _bad_images(self) -> list[dict[str, Any]]:
        """The broken pictures that any host met, each once."""
        mine = json.dumps(picture_batches.report(self.pictures))
        met = [line for said in hosts.gather("bad images", mine) for line in json.loads(said)]
        return [*{(line["part"], line["row"]): line for line in met}.values()]

    def _encoder(self, trained: ImageEncoder) -> ImageEncoder:
        """The encoder that leaves, with statistics of the training drawings as they are."""
        encoder = ImageEncoder(self.exported.encoder(trained.cfg), rngs=HostDraws(0))
        nnx.update(encoder.backbone, nnx.state(trained.backbone))
        size = self.eval.batch_size
        options = ExtractConfig(
            image=encoder.cfg, image_batch=size, pixel_limit=self.data.pixel_limit
        )
        rows = encoding.in_batches(self.labels.rows["train"].tolist(), size)

        def batches() -> Iterator[Decoded]:
            return encoding.decoded_batches(self.dataset.pictures, rows, options)

        if encoder.cfg.style == trained.cfg.style:
            nnx.update(encoder.style_head, nnx.state(trained.style_head))
        else:
            encoding.calibrate(encoder, batches(), head_alone=True)
        encoding.whiten(encoder, batches())
        return encoder

    def show(self, summary: Mapping[str, Any], console: Console) -> None:
        """Prints metrics, and what could not be decoded."""
        table = Table(
            title=f"{summary['source']}: {summary['tags']} tags on {summary['drawings']} drawings",
            title_justify="left",
        )
        table.add_column("")
        for name in results.PARTS.values():
            table.add_column(name, justify="right")
        for metric in summary["test"]:
            cells = [summary[name][metric] for name in results.PARTS.values()]
            table.add_row(metric.replace("_", " "), *map("{:.4f}".format, cells))
        chance = [summary["chance_map"][name] for name in results.PARTS.values()]
        table.add_row("map by chance", *map("{:.4f}".format, chance))
        console.print(table)
        for bad in summary.get("bad_images", [])[:10]:
            console.print(f"row {bad['row']} ({bad['part']}): {bad['reason']}", markup=False)


def assemble(config: ConfigDict, console: Console) -> ImageTagsJob:
    """Checks a config and makes what it names, the data set first.

    Raises:
        ValueError: A key or value that is not known, or data that cannot be used.
    """
    made = sections.read(config, SECTIONS)
    dataset = sections.prepared(made["data"], console)
    made["export"].encoder(made["model"].image)  # wrong options shall not wait for the end
    labels = labels_of.build(dataset, made["labels"])
    task = ImageTagsTask(labels, made["model"], made["objective"], made["augment"])
    return ImageTagsJob(
        config,
        dataset,
        labels,
        task,
        sections.fit_config(made),
        *(made[name] for name in ("data", "eval", "export")),
    )
