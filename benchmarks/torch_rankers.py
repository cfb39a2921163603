"""Peers of our rankers in torch: models of FuxiCTR's layers, and DeepCTR-Torch's own.

FuxiCTR's wheel has layers, `BaseModel` and its train step, but not its models: those are put
together here as in its model zoo. Sizes are those of the paper's ranker: width 8, a mixture of 4
experts of rank 32 in 2 cross layers, hidden layers of 64, 32 and 16.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from umair_jax.data.schema import Schema

PACKAGES = ("torch", "fuxictr", "deepctr-torch")
PROJECTED, CONCATENATED = "projected", "concatenated"
# Framework, model, and how vectors come in: each projected to a field, or all side by side.
PEERS = {
    "FuxiCTR DCNv2, concatenated": ("fuxictr", "dcnv2", CONCATENATED),
    "FuxiCTR DCNv2, projected": ("fuxictr", "dcnv2", PROJECTED),
    "FuxiCTR FinalMLP, concatenated": ("fuxictr", "finalmlp", CONCATENATED),
    "FuxiCTR FinalMLP, projected": ("fuxictr", "finalmlp", PROJECTED),
    "FuxiCTR DeepFM, projected": ("fuxictr", "deepfm", PROJECTED),
    "DeepCTR-Torch DCNMix, concatenated": ("deepctr", "dcnv2", CONCATENATED),
    "DeepCTR-Torch DeepFM, concatenated": ("deepctr", "deepfm", CONCATENATED),
}
HIDDEN = (64, 32, 16)
RANK, EXPERTS, LAYERS = 32, 4, 2
_RATE = 1e-3

Batch = Mapping[str, np.ndarray]


class Peers:
    """Train steps of the peers on given batches.

    Attributes:
        missing: Why there are none; "" where there are.
        about: Threads and versions.
    """

    def __init__(self, schema: Schema, vectors: Mapping[str, np.ndarray]) -> None:
        """Imports the frameworks.

        Args:
            schema: Fields, and sizes of their tables.
            vectors: Of every dense field, those of all items or states, float32 [N, D].
        """
        self.missing, self._schema = "", schema
        try:
            import deepctr_torch.models  # noqa: F401
            import fuxictr.pytorch.models  # noqa: F401
            import torch
        except ImportError as error:
            self.missing = f"torch, fuxictr and deepctr-torch cannot be imported: {error}"
            return
        self._torch = torch
        self._vectors = {name: torch.from_numpy(array) for name, array in vectors.items()}
        self.about: dict[str, Any] = {
            "torch_threads": torch.get_num_threads(),
            "torch_versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        }

    def step(self, name: str, batches: Sequence[Batch]) -> Callable[[], object]:
        """A train step, Adam at its end, that takes one batch after the other.

        Args:
            name: One of PEERS.
            batches: Of every sparse field an index int32 [B] into its table, of every dense one
                a row int32 [B] of its vectors, and "label" float32 [B].
        """
        framework, model, vectors = PEERS[name]
        tensors = [{k: self._torch.from_numpy(v) for k, v in b.items()} for b in batches]
        make = self._fuxictr if framework == "fuxictr" else self._deepctr_torch
        return make(model, vectors, tensors)

    def _looked_up(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch with its vectors: the least that a loader does, and what our steps do too."""
        return {
            name: self._vectors[name].index_select(0, values) if name in self._vectors else values
            for name, values in batch.items()
        }

    def _fuxictr(
        self, name: str, vectors: str, batches: Sequence[Mapping[str, Any]]
    ) -> Callable[[], object]:
        model = _fuxictr_model(self._torch, self._schema, name, vectors)
        model.train()
        done = 0

        def run() -> object:
            nonlocal done
            loss = model.train_step(self._looked_up(batches[done % len(batches)]))
            done += 1
            return loss.item()  # as its train_epoch

        return run

    def _deepctr_torch(
        self, name: str, vectors: str, batches: Sequence[Mapping[str, Any]]
    ) -> Callable[[], object]:
        from deepctr_torch import models
        from deepctr_torch.inputs import DenseFeat, SparseFeat

        schema = self._schema
        columns = [
            SparseFeat(f.name, f.size, schema.embedding_width, embedding_name=f.table)
            for f in schema.sparse()
        ]
        columns += [DenseFeat(f.name, f.width) for f in schema.dense()]
        options: dict[str, Any] = {"dnn_hidden_units": HIDDEN, "device": "cpu"}
        if name == "dcnv2":
            kind = models.DCNMix
            options |= {"cross_num": LAYERS, "low_rank": RANK, "num_experts": EXPERTS}
        else:
            kind = models.DeepFM
        model = kind(columns, columns, **options)
        model.compile("adam", "binary_crossentropy", metrics=[])
        model.train()
        done = 0

        def run() -> object:
            nonlocal done
            batch = self._looked_up(batches[done % len(batches)])
            done += 1
            # As its fit: ids and vectors are one array.
            parts = [batch[c.name].float().view(len(batch["label"]), -1) for c in columns]
            predicted = model(self._torch.cat(parts, dim=1)).squeeze()
            model.optim.zero_grad()
            loss = model.loss_func(predicted, batch["label"], reduction="sum")
            total = loss + model.get_regularization_loss() + model.aux_loss
            total.backward()
            model.optim.step()
            return total.item()

        return run


def _feature_map(schema: Schema, vectors: str | None) -> Any:
    """FuxiCTR's description of the fields; without the dense ones if `vectors` is None."""
    from fuxictr.features import FeatureMap

    found = FeatureMap("made_up", "")
    found.labels, found.default_emb_dim = ["label"], schema.embedding_width
    first: dict[str, str] = {}
    for field in schema.sparse():
        spec: dict[str, Any] = {"source": "", "type": "categorical", "vocab_size": field.size}
        if field.table in first:
            spec["share_embedding"] = first[field.table]
        first.setdefault(field.table, field.name)
        found.features[field.name] = spec
    for field in schema.dense() if vectors else ():
        spec = {"source": "", "type": "embedding", "pretrain_dim": field.width}
        if vectors == CONCATENATED:
            spec |= {"embedding_dim": field.width, "feature_encoder": "nn.Identity()"}
        found.features[field.name] = spec
    found.num_fields = len(found.features)
    return found


def _fuxictr_model(torch: Any, schema: Schema, name: str, vectors: str) -> Any:
    """A model of FuxiCTR's layers, compiled with Adam."""
    from fuxictr.pytorch import layers
    from fuxictr.pytorch.models import BaseModel

    nn, width = torch.nn, schema.embedding_width
    features, sparse = _feature_map(schema, vectors), _feature_map(schema, None)
    inputs = features.sum_emb_out_dim()

    def network(units: Sequence[int], output: int | None = None) -> Any:
        return layers.MLP_Block(
            input_dim=inputs, output_dim=output, hidden_units=list(units), hidden_activations="ReLU"
        )

    class Model(BaseModel):
        """The parts that all have in common: embeddings, and BaseModel's train step."""

        def __init__(self) -> None:
            super().__init__(
                features, model_id=name, model_root="", metrics=["AUC"], verbose=0, gpu=-1
            )
            self.embedding_layer = layers.FeatureEmbedding(features, width)
            self.build()
            self.compile("adam", "binary_crossentropy", _RATE)
            self.reset_parameters()
            self._max_gradient_norm = 10.0  # the default of its fit

        def forward(self, batch: Any) -> dict[str, Any]:
            x = self.get_inputs(batch)
            embedded = self.embedding_layer(x, flatten_emb=True)
            return {"y_pred": self.output_activation(self.logit(x, embedded))}

    class DCNv2(Model):
        def build(self) -> None:
            self.cross = layers.CrossNetMix(inputs, LAYERS, low_rank=RANK, num_experts=EXPERTS)
            self.deep = network(HIDDEN)
            self.out = nn.Linear(inputs + HIDDEN[-1], 1)

        def logit(self, x: Any, embedded: Any) -> Any:
            return self.out(torch.cat([self.cross(embedded), self.deep(embedded)], dim=-1))

    class FinalMLP(Model):
        def build(self) -> None:
            self.contexts = nn.ParameterList(nn.Parameter(torch.zeros(1, width)) for _ in range(2))
            self.gates = nn.ModuleList(
                layers.MLP_Block(
                    input_dim=width,
                    output_dim=inputs,
                    hidden_units=[64],
                    hidden_activations="ReLU",
                    output_activation="Sigmoid",
                )
                for _ in range(2)
            )
            self.streams = nn.ModuleList(network(HIDDEN) for _ in range(2))
            self.left, self.right = nn.Linear(HIDDEN[-1], 1), nn.Linear(HIDDEN[-1], 1)
            self.both = nn.Parameter(torch.empty(HIDDEN[-1], HIDDEN[-1]))
            nn.init.xavier_normal_(self.both)

        def logit(self, x: Any, embedded: Any) -> Any:
            left, right = (
                stream(embedded * gate(context) * 2)
                for stream, gate, context in zip(
                    self.streams, self.gates, self.contexts, strict=True
                )
            )
            product = ((left @ self.both) * right).sum(dim=-1, keepdim=True)
            return self.left(left) + self.right(right) + product

    class DeepFM(Model):
        def build(self) -> None:
            self.first = layers.LogisticRegression(sparse)
            self.pairs = layers.InnerProductInteraction(features.num_fields, "product_sum")
            self.deep = network(HIDDEN, 1)

        def logit(self, x: Any, embedded: Any) -> Any:
            fields = embedded.view(len(embedded), -1, width)
            first = self.first({k: x[k] for k in sparse.features})
            return first + self.pairs(fields) + self.deep(embedded)

    return {"dcnv2": DCNv2, "finalmlp": FinalMLP, "deepfm": DeepFM}[name]()
