"""From a config file to the small frozen dataclasses that the rest of the package takes.

ConfigDict stops here. Every leaf of a config names a field of a dataclass, so a typo fails at
construction, with the nearest name; and everything that reaches a model is hashable and immutable.
"""

import dataclasses
import difflib
import json
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from absl import app
from ml_collections import ConfigDict

T = TypeVar("T")


def build(kind: type[T], section: Mapping[str, Any] | ConfigDict, where: str = "config") -> T:
    """Makes a dataclass from a section of a config; nested dataclasses from nested sections.

    Args:
        kind: the dataclass.
        section: values by field name; fields that are left out keep their defaults.
        where: how the section is called in an error.

    Returns:
        An instance of `kind`, its sequences as tuples.

    Raises:
        ValueError: a key that the dataclass lacks (the nearest one is suggested), a required one
            that is missing, or a value that the dataclass itself refuses.
    """
    if isinstance(section, ConfigDict):
        section = section.to_dict()
    if not isinstance(section, Mapping):
        raise ValueError(f"{where}: got {section!r}, expected a section with keys")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = {}
    for key, value in section.items():
        if key not in fields:
            raise ValueError(_unknown(where, key, list(fields)))
        values[key] = _convert(hints[key], value, f"{where}.{key}")
    missing = [
        name
        for name, field in fields.items()
        if name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where}: missing {', '.join(missing)}; expected by {kind.__name__}")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    options = [hint]
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        options = list(typing.get_args(hint))
        if value is None and type(None) in options:
            return None
    for option in options:
        origin, inner = typing.get_origin(option), typing.get_args(option)
        if dataclasses.is_dataclass(option) and isinstance(option, type):
            if isinstance(value, Mapping):
                return build(option, value, where)
        elif origin is tuple and isinstance(value, list | tuple):
            element = inner[0] if inner else Any
            if dataclasses.is_dataclass(element):
                return tuple(_convert(element, v, f"{where}[{i}]") for i, v in enumerate(value))
            return tuple(value)
        elif option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif option is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        elif option is bool and isinstance(value, bool):
            return value
        elif option is str and isinstance(value, str):
            return value
        elif option is Any or origin is dict:
            return value
    if all(option in (int, float, bool, str) for option in options):
        wanted = " or ".join(option.__name__ for option in options)
        raise ValueError(f"{where}: got {value!r} ({type(value).__name__}), expected {wanted}")
    return value


def _unknown(where: str, key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
    return f"{where}: unknown key {key!r}; {hint}"


def as_json(config: ConfigDict) -> dict[str, Any]:
    """The resolved config as JSON-able nested dicts, tuples as lists."""
    return json.loads(json.dumps(config.to_dict()))


def run_front_door(main: Callable[[list[str]], None]) -> None:
    """Runs a command; a user's mistake ends in one line and exit status 2, not in a traceback."""
    try:
        app.run(main)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except AttributeError as error:
        # An override that names no leaf of the config is found while flags are parsed.
        if "Did you mean" not in str(error) and "does not exist" not in str(error):
            raise
        text = str(error).replace("\n", " ")
        print(f"error: unknown config key {text}", file=sys.stderr)
        sys.exit(2)
