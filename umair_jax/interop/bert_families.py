"""Which transformer of Hugging Face has which settings of the text encoder, both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import Tokenizer

from umair_jax.data.tokenizer import PAD, find_mark
from umair_jax.interop import bert_names
from umair_jax.interop.key_map import Rule
from umair_jax.models.text_encoder import TextEncoderConfig


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of transformer.

    Attributes:
        rules: The names of its arrays.
        settings: Which setting of ours is which entry of its config.json.
        activation: The entry that names the activation.
        fixed: Settings that it does not write down, or functions of its config.json.
    """

    rules: tuple[Rule, ...]
    settings: Mapping[str, str]
    activation: str
    fixed: Mapping[str, Any]

    def ours(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of a `TextEncoderConfig`.

        Raises:
            ValueError: An entry is missing, or the activation is not the one we have.
        """
        if config.get(self.activation, "gelu") != "gelu":
            raise ValueError(
                f"{self.activation}: got {config[self.activation]!r}, expected 'gelu'."
            )
        missing = [theirs for theirs in self.settings.values() if theirs not in config]
        if missing:
            raise ValueError(f"got no {', '.join(missing)}, expected a complete configuration.")
        found = {ours: config[theirs] for ours, theirs in self.settings.items()}
        return {**found, **{k: v(config) if callable(v) else v for k, v in self.fixed.items()}}


_SHARED = {
    "vocabulary": "vocab_size",
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "epsilon": "layer_norm_eps",
    "dropout": "hidden_dropout_prob",
}
# Positions of this family start behind the id of padding.
_BEHIND_PADDING: dict[str, Callable[[Mapping[str, Any]], int]] = {
    "position_offset": lambda config: config.get("pad_token_id", 1) + 1,
    "max_positions": lambda config: (
        config["max_position_embeddings"] - config.get("pad_token_id", 1) - 1
    ),
}
_TYPES = {"token_types": "type_vocab_size"}
_BERT = Family(bert_names.BERT, _SHARED | _TYPES, "hidden_act", {})
_ROBERTA = Family(bert_names.BERT, _SHARED | _TYPES, "hidden_act", _BEHIND_PADDING)
_DISTILBERT = Family(
    bert_names.DISTILBERT,
    {
        "vocabulary": "vocab_size",
        "layers": "n_layers",
        "width": "dim",
        "heads": "n_heads",
        "ffn": "hidden_dim",
        "max_positions": "max_position_embeddings",
        "dropout": "dropout",
    },
    "activation",
    {"token_types": 0, "epsilon": 1e-12},
)
_MPNET = Family(
    bert_names.MPNET,
    _SHARED | {"relative_buckets": "relative_attention_num_buckets"},
    "hidden_act",
    _BEHIND_PADDING | {"token_types": 0},
)
FAMILIES = {
    "bert": _BERT,
    "distilbert": _DISTILBERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": _MPNET,
}
_CLASSES = {
    "bert": "BertModel",
    "distilbert": "DistilBertModel",
    "xlm-roberta": "XLMRobertaModel",
    "mpnet": "MPNetModel",
}


def their_config(config: TextEncoderConfig, tokenizer: Tokenizer) -> tuple[str, dict[str, Any]]:
    """The kind of transformer that computes what this one does, and its config.json.

    Raises:
        ValueError: Hugging Face has none.
    """
    if config.relative_buckets:
        family = "mpnet"
    elif config.position_offset:
        family = "xlm-roberta"
    else:
        distilled = not config.token_types and config.epsilon == 1e-12
        family = "distilbert" if distilled else "bert"
    mark = find_mark(tokenizer, PAD)
    padding = None if mark is None else tokenizer.token_to_id(mark)
    if config.position_offset and padding != config.position_offset - 1:
        raise ValueError(
            f"position_offset: got {config.position_offset} with padding token {padding}, expected "
            "the offset to be one more: Hugging Face counts positions from there."
        )
    if family == "mpnet" and (config.position_offset != 2 or config.token_types):
        raise ValueError(
            f"relative_buckets: got {config.relative_buckets} with position_offset "
            f"{config.position_offset} and token_types {config.token_types}, expected 2 and 0: "
            "Hugging Face has relative positions only in MPNet."
        )
    values = dataclasses.asdict(config)
    values["max_positions"] += config.position_offset
    values["token_types"] = config.token_types or 1
    known = FAMILIES[family]
    theirs = {their_name: values[ours] for ours, their_name in known.settings.items()}
    rate = "attention_dropout" if family == "distilbert" else "attention_probs_dropout_prob"
    return family, {
        "model_type": family,
        "architectures": [_CLASSES[family]],
        **theirs,
        rate: config.dropout,
        known.activation: "gelu",
        "pad_token_id": padding or 0,
    }
