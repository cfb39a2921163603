"""Writes docs/config.md: every key of every config, from the dataclasses that read them.

python docs/config_reference.py
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "config.md"
HEAD = """# The keys of every config

Made from the code by `python docs/config_reference.py`; a test holds it to that. Any key can be
set on the command line, `--config.train.epochs=3`, and a misspelt one is an error that names the
nearest. The values are those that the config's file sets. What a run had is in its `config.json`.

Beside the sections below every config has `seed` (initial weights, dropout, order of examples) and
`task`. A sweep has `seeds`, `draws`, `reference`, `rows`, `overrides` and `search`
(umair_jax/sweeps/config.py); the `model` of a baseline has the keys of its dataclass in
umair_jax/models/baselines/.
"""
# Keys that the job fills in from the schema or from other sections.
HIDDEN = {"InputShapes", "TrainConfig.seed"}


def sections() -> Iterator[tuple[str, str, dict[str, type], tuple[str, ...]]]:
    """Config file, what it is, its sections, and the sections that were described before."""
    from umair_jax.jobs import bookmarks, image_tags, joint, retrieval, text_pairs
    from umair_jax.models.ranker import RankerConfig
    from umair_jax.training.settings import TrainConfig

    main = {**bookmarks.SECTIONS, "model": RankerConfig, "train": TrainConfig}
    yield "base", "The main job", main, ()
    yield "joint", "Ranker and encoders, end to end", joint.SECTIONS, tuple(main)
    towers = tuple(name for name in main if name != "model")
    yield "retrieval", "Two towers for candidates", retrieval.SECTIONS, towers
    known = ("data", "train", *bookmarks.sections.COMMON)
    yield "image_tags", "The image encoder, trained on tags", image_tags.SECTIONS, known
    yield "text_pairs", "The text encoder, trained on pairs", text_pairs.SECTIONS, known


def page() -> str:
    """The text of docs/config.md."""
    parts = [HEAD]
    for name, title, kinds, known in sections():
        config = importlib.import_module(f"configs.{name}").get_config("").to_dict()
        parts.append(f"\n## {title}: configs/{name}.py\n")
        if known:
            parts.append(f"As in the main job: {', '.join(f'`{k}`' for k in known)}.\n")
        for section in config:
            if section in kinds and section not in known:
                parts.append(_section(section, kinds[section], config[section]))
    return "\n".join(parts)


def _section(name: str, kind: type, values: Mapping[str, Any]) -> str:
    lines = [f"\n### {name}\n", _summary(kind), "", "| key | value | what |", "|---|---|---|"]
    lines += _rows(name, kind, values)
    return "\n".join(lines)


def _rows(where: str, kind: type, values: Mapping[str, Any]) -> Iterator[str]:
    said, hints = _attributes(kind), typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        key = f"{where}.{field.name}"
        if _hidden(kind, field.name):
            continue
        inner = hints[field.name]
        if dataclasses.is_dataclass(inner) and isinstance(inner, type):
            yield f"| `{key}` | | {_cell(said.get(field.name, ''))} |"
            yield from _rows(key, inner, values.get(field.name, {}))
            continue
        value = values.get(field.name, _default(field))
        yield f"| `{key}` | {_shown(value)} | {_cell(said.get(field.name, ''))} |"


def _hidden(kind: type, name: str) -> bool:
    for base in kind.__mro__[::-1]:
        if name in getattr(base, "__annotations__", {}):
            return base.__name__ in HIDDEN or f"{base.__name__}.{name}" in HIDDEN
    return False


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _shown(value: Any) -> str:
    text = repr(value)
    return f"`{_cell(text)}`" if len(text) <= 60 else "see the file"


def _summary(kind: type) -> str:
    return " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())


def _attributes(kind: type) -> dict[str, str]:
    """What the docstrings of a dataclass and of its bases say of each attribute."""
    found: dict[str, str] = {}
    for base in kind.__mro__[::-1]:
        text = inspect.cleandoc(base.__doc__ or "")
        _, _, block = text.partition("Attributes:\n")
        name = ""
        for line in block.splitlines():
            if line and not line.startswith(" "):
                break
            head = re.match(r" {4}(\w+): (.*)", line)
            if head:
                name = head[1]
                found[name] = head[2]
            elif name and line.strip():
                found[name] += " " + line.strip()
    return found


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(page(), "utf-8")
