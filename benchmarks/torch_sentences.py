"""The peer of the text encoder's benchmark: sentence-transformers, if it is installed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("torch", "transformers", "sentence-transformers")


class SentencePeer:
    """Encoding and training steps of a folder's model in torch.

    Attributes:
        missing: Why there are none; "" where there are.
    """

    def __init__(self, folder: Path, max_tokens: int) -> None:
        """Loads the model, on the GPU if torch sees one.

        Args:
            folder: Of sentence-transformers.
            max_tokens: Longest text.
        """
        self.missing = ""
        try:
            import torch
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.sentence_transformer import losses
        except Exception as error:  # a torchvision that does not fit raises RuntimeError
            self.missing = f"sentence-transformers cannot be imported: {error}"
            return
        self._torch = torch
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = SentenceTransformer(str(folder), device=device, local_files_only=True)
        self.model.max_seq_length = max_tokens
        self._ranking = losses.MultipleNegativesRankingLoss
        self.about: dict[str, Any] = {
            "torch_threads": torch.get_num_threads(),
            "torch_device": device,
            "torch_versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        }

    def wait(self, result: object) -> None:
        """Returns when the GPU has done everything; on the CPU it has."""
        if self._torch.cuda.is_available():
            self._torch.cuda.synchronize()

    def encode(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        """Their vectors, as the library's users make them."""
        return self.model.encode(list(texts), batch_size=batch_size, show_progress_bar=False)

    def train_step(
        self, batches: Sequence[tuple[Sequence[str], Sequence[str]]], scale: float
    ) -> Callable[[], object]:
        """Updates of AdamW on batches of pairs in turn; their texts are tokenised beforehand."""
        torch = self._torch
        model = self.model.train()
        loss_of = self._ranking(model, scale=scale)
        optimiser = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01)
        tokenize = getattr(model, "preprocess", model.tokenize)
        features = [[tokenize(list(texts)) for texts in pair] for pair in batches]
        turn = [0]

        def run() -> object:
            chosen = features[turn[0] % len(features)]
            turn[0] += 1
            given = [
                {k: v.to(model.device) if hasattr(v, "to") else v for k, v in one.items()}
                for one in chosen
            ]
            loss = loss_of(given, None)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            return loss.detach()

        return run
