"""Folders of sentence-transformers, read and written.

    found = read_sentence_transformers("all-MiniLM-L6-v2")
    found.config          # TextEncoderConfig(layers=6, width=384, ...)
    found.arrays          # {"transformer/tokens": ..., ...}, as in TextEncoder

A folder holds a chain of modules, which modules.json names:

| module      | what of it is read                                                            |
|-------------|-------------------------------------------------------------------------------|
| Transformer | BERT, DistilBERT, RoBERTa, XLM-R, CamemBERT or MPNet: config.json, weights,   |
|             | tokenizer.json, sentence_bert_config.json (longest text, lower case)          |
| Pooling     | mean, first token (cls) or max                                                |
| Dense       | optional; followed by tanh or by nothing                                      |
| Normalize   | optional                                                                      |

distiluse-base-multilingual-cased-v2, the encoder that the paper starts from, is such a folder:
DistilBERT, mean, Dense 512 with tanh.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from tokenizers import Tokenizer, normalizers

from umair_jax.data import tokenizer as words
from umair_jax.data.tokenizer import SPECIAL, find_mark
from umair_jax.interop import bert_names, files, key_map
from umair_jax.interop.bert_families import FAMILIES, their_config
from umair_jax.interop.key_map import Rule, Translation
from umair_jax.models import weights
from umair_jax.models.text_encoder import TextEncoder, TextEncoderConfig

MODULES = "modules.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_ACTIVATIONS = {"Tanh": "tanh", "Identity": "identity"}
_MARKS = dict(
    zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True)
)


@dataclasses.dataclass(frozen=True)
class SentenceEncoder:
    """A text encoder under our names.

    Attributes:
        family: The model type of its transformer: "bert", "xlm-roberta", ...
        config: The encoder that the arrays fit.
        arrays: float32, by the paths of a `TextEncoder`.
        tokenizer: Its tokenizer.
        max_tokens: Longest text, marks included.
        dropped: Entries of the files that were left out, and why.
    """

    family: str
    config: TextEncoderConfig
    arrays: dict[str, np.ndarray]
    tokenizer: Tokenizer
    max_tokens: int
    dropped: dict[str, str]


def read_sentence_transformers(folder: str | os.PathLike[str]) -> SentenceEncoder:
    """Reads an encoder that sentence-transformers saved; nothing in the folder is executed.

    Args:
        folder: Has modules.json.

    Raises:
        ValueError: A file is missing or broken, the folder holds a model that this encoder cannot
            compute, or not exactly the arrays of such a model; lists all names that are missing,
            unknown or misshapen.
    """
    folder = Path(folder)
    chain = _chain(folder)
    root = chain["Transformer"]
    config = _json(root / "config.json")
    name = config.get("model_type")
    family = FAMILIES.get(name)
    if family is None:
        raise ValueError(
            f"{root / 'config.json'}: got the model type {name!r}, expected one of "
            f"{', '.join(FAMILIES)}."
        )
    try:
        settings = family.ours(config)
    except ValueError as error:
        raise ValueError(f"{root / 'config.json'}: {error}") from error
    found = _arrays(root, family.rules)
    settings["pooling"] = _pooling(chain["Pooling"] / "config.json")
    settings["output"] = 0
    if "Dense" in chain:
        settings |= _dense(chain["Dense"], found)
    settings["normalise"] = "Normalize" in chain
    limits = _limits(root)
    tokenizer = _tokenizer(root, limits.get("do_lower_case", False))
    known = words.table_size(tokenizer)
    table = found.arrays.get("transformer/tokens")
    if table is not None and known < len(table) == settings["vocabulary"]:
        # Tables are often padded to a round number; those rows have no token.
        found.arrays["transformer/tokens"] = table[:known]
        found.dropped[f"rows {known:,} to {len(table) - 1:,} of the tokens"] = "no such token"
        settings["vocabulary"] = known
    if known > settings["vocabulary"]:
        raise ValueError(
            f"{root}: got a tokenizer of {known:,} tokens, expected at most the "
            f"{settings['vocabulary']:,} of the weights."
        )
    try:
        shape = TextEncoderConfig(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{root / 'config.json'}: {error}") from error
    found.complete(leaf_shapes(shape), f"{folder}: taken for a {name}")
    longest = limits.get("max_seq_length") or shape.max_positions
    return SentenceEncoder(
        family=name,
        config=shape,
        arrays=dict(sorted(found.arrays.items())),
        tokenizer=tokenizer,
        max_tokens=min(int(longest), shape.max_positions),
        dropped=found.dropped,
    )


def write_sentence_transformers(
    config: TextEncoderConfig,
    arrays: Mapping[str, np.ndarray],
    tokenizer: Tokenizer,
    folder: str | os.PathLike[str],
    *,
    max_tokens: int = 0,
    dtype: str = "float32",
) -> None:
    """Writes an encoder as a folder that `SentenceTransformer(folder)` loads.

    Args:
        config: Of the encoder.
        arrays: `weights.flatten` of it.
        tokenizer: That it was trained with.
        folder: Is made; must not be there.
        max_tokens: Longest text; 0 = `config.max_positions`.
        dtype: How the weights are stored.

    Raises:
        ValueError: Hugging Face has no transformer that computes the same, the tokenizer does not
            fit, or the folder is there.
    """
    if words.table_size(tokenizer) != config.vocabulary:
        raise ValueError(
            f"tokenizer: got {words.table_size(tokenizer):,} tokens, expected the encoder's "
            f"{config.vocabulary:,}."
        )
    family, settings = their_config(config, tokenizer)
    whole = key_map.to_ours(arrays, [Rule(name, name) for name in arrays])
    whole.complete(leaf_shapes(config), "weights of the text encoder")
    longest = max_tokens or config.max_positions
    with files.new_folder(folder) as made:
        _write_chain(config, family, arrays, longest, dtype, made)
        _write_json(made / "config.json", settings)
        _write_tokenizer(tokenizer, longest, made)


def _write_chain(
    config: TextEncoderConfig,
    family: str,
    arrays: Mapping[str, np.ndarray],
    longest: int,
    dtype: str,
    folder: Path,
) -> None:
    """All modules, short of the transformer's configuration and tokenizer."""
    inside = {k: v for k, v in arrays.items() if k.startswith("transformer/")}
    if not config.token_types and family in ("bert", "xlm-roberta"):
        inside["transformer/types"] = np.zeros((1, config.width), np.float32)
    for part in ("", "1_Pooling", *(["2_Dense"] if config.output else [])):
        (folder / part).mkdir(parents=True, exist_ok=True)
    _write_arrays(inside, FAMILIES[family].rules, folder, dtype)
    _write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": longest, "do_lower_case": False},
    )
    modes = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}
    _write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": config.width,
            **{f"pooling_mode_{theirs}": ours == config.pooling for ours, theirs in modes.items()},
        },
    )
    chain = [("", "Transformer"), ("1_Pooling", "Pooling")]
    if config.output:
        chain.append(("2_Dense", "Dense"))
        dense = {k: v for k, v in arrays.items() if k.startswith("dense/")}
        _write_arrays(dense, bert_names.DENSE, folder / "2_Dense", dtype)
        names = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
        module = "activation" if config.activation == "tanh" else "linear"
        _write_json(
            folder / "2_Dense" / "config.json",
            {
                "in_features": config.width,
                "out_features": config.output,
                "bias": True,
                "activation_function": f"torch.nn.modules.{module}.{names[config.activation]}",
            },
        )
    if config.normalise:
        chain.append((f"{len(chain)}_Normalize", "Normalize"))
    _write_json(
        folder / MODULES,
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(chain)
        ],
    )


def leaf_shapes(config: TextEncoderConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every array of a `TextEncoder`, by path."""
    return weights.shapes(nnx.eval_shape(lambda: TextEncoder(config, rngs=nnx.Rngs(0))))


def _json(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"{path}: got no such file, expected one of a sentence-transformers model")
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON: {error}") from error


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def _chain(folder: Path) -> dict[str, Path]:
    """The folder of each module by its kind."""
    modules = _json(folder / MODULES)
    try:
        found = {m["type"].rsplit(".", 1)[-1]: folder / m["path"] for m in modules}
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{folder / MODULES}: got {modules}, expected modules' types") from error
    expected = ["Transformer", "Pooling"]
    expected += [kind for kind in ("Dense", "Normalize") if kind in found]
    if [*found] != expected or len(modules) != len(found):
        kinds = ", ".join(str(m["type"]).rsplit(".", 1)[-1] for m in modules)
        raise ValueError(
            f"{folder / MODULES}: got {kinds}; expected Transformer, Pooling, and then at most one "
            "Dense and one Normalize."
        )
    return found


def _arrays(folder: Path, rules: Sequence[Rule]) -> Translation:
    path = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise ValueError(f"{folder}: got no weights, expected {' or '.join(_WEIGHTS)}.")
    contents = files.read(path)
    found = key_map.to_ours(contents.arrays, rules, bert_names.PREFIXES)
    found.dropped.update(contents.dropped)
    return found


def _pooling(path: Path) -> str:
    config = _json(path)
    modes = [
        name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for name, value in config.items()
        if name.startswith("pooling_mode_") and value is True
    ]
    named = config.get("pooling_mode")
    if named is not None:
        modes = [named] if isinstance(named, str) else list(named)
    if len(modes) != 1 or modes[0] not in ("mean", "cls", "max"):
        raise ValueError(f"{path}: got {' + '.join(modes) or 'none'}, expected mean, cls or max.")
    return modes[0]


def _dense(folder: Path, found: Translation) -> dict[str, Any]:
    """Adds the arrays of the dense layer; its settings."""
    config = _json(folder / "config.json")
    activation = str(config.get("activation_function", "")).rsplit(".", 1)[-1]
    if activation not in _ACTIVATIONS:
        raise ValueError(
            f"{folder / 'config.json'}: got the activation {activation!r}, expected one of "
            f"{', '.join(_ACTIVATIONS)}."
        )
    layer = _arrays(folder, bert_names.DENSE)
    if "dense/kernel" in layer.arrays and "dense/bias" not in layer.arrays:
        layer.arrays["dense/bias"] = np.zeros(layer.arrays["dense/kernel"].shape[-1], np.float32)
        layer.origin["dense/bias"] = ("linear.bias", bert_names.DENSE[1])
    found.arrays.update(layer.arrays)
    found.origin.update(layer.origin)
    found.problems.extend(layer.problems)
    return {"output": config.get("out_features", 0), "activation": _ACTIVATIONS[activation]}


def _limits(folder: Path) -> dict[str, Any]:
    """Longest text and lower case, as far as the folder says."""
    found: dict[str, Any] = {}
    if (folder / "tokenizer_config.json").is_file():
        longest = _json(folder / "tokenizer_config.json").get("model_max_length")
        # Some thirty digits stand for no limit.
        found["max_seq_length"] = longest if longest and longest < 1e6 else None
    if (folder / "sentence_bert_config.json").is_file():
        stated = _json(folder / "sentence_bert_config.json")
        found |= {name: value for name, value in stated.items() if value is not None}
    return found


def _tokenizer(folder: Path, lower_case: bool) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(
            f"{path}: got no such file, expected a fast tokenizer; make one: "
            f"transformers.AutoTokenizer.from_pretrained({str(folder)!r})"
            f".save_pretrained({str(folder)!r})"
        )
    tokenizer = words.load_tokenizer(path)
    if lower_case:
        known = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *known])  # pyright: ignore[reportAttributeAccessIssue]
    return tokenizer


def _write_arrays(
    arrays: Mapping[str, np.ndarray], rules: Sequence[Rule], folder: Path, dtype: str
) -> None:
    renamed = key_map.to_theirs(arrays, rules)
    weights.write(renamed, folder / _WEIGHTS[0], dtype=dtype, metadata={"format": "pt"})


def _write_tokenizer(tokenizer: Tokenizer, longest: int, folder: Path) -> None:
    # Without it the library says that models need torch; its tokenizer does not.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import PreTrainedTokenizerFast  # slow to import

    found = {role: find_mark(tokenizer, mark) for role, mark in _MARKS.items()}
    marks = {role: name for role, name in found.items() if name is not None}
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.to_str()), model_max_length=longest, **marks
    )
    wrapped.save_pretrained(folder)
