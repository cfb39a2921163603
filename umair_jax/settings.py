"""From a config file to the small frozen dataclasses that the rest of the package takes.

ConfigDict stops here. Every leaf of a config names a field of a dataclass, so a typo fails at
construction, with the nearest name; and everything that reaches a model is hashable and immutable.
"""

import dataclasses
import difflib
import json
import re
import sys
import traceback
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from absl import app, flags, logging
from ml_collections import ConfigDict
from ml_collections.config_flags import config_path

T = TypeVar("T")

_UNFIT: Any = object()
_NOT_LOADED = "Failed loading config file"


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
    """The value as one of the hint's types; an error names the place and what is expected."""
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    options = list(typing.get_args(hint)) if union else [hint]
    # Of "a section, or sections by name" the second is meant if there are only sections in it.
    if isinstance(value, Mapping) and value and all(isinstance(v, Mapping) for v in value.values()):
        options.sort(key=lambda option: not _is_mapping(option))
    for option in options:
        found = _as(option, value, where)
        if found is not _UNFIT:
            return found
    names = [getattr(option, "__name__", str(option)) for option in options]
    wanted = " or ".join(names).replace("NoneType", "None")
    raise ValueError(f"{where}: got {value!r} ({type(value).__name__}), expected {wanted}")


def _as(option: Any, value: Any, where: str) -> Any:
    """The value as one type, or `_UNFIT`; types that a config cannot hold are not checked."""
    inner = typing.get_args(option)
    if dataclasses.is_dataclass(option) and isinstance(option, type):
        if isinstance(value, Mapping):
            return build(option, value, where)
        return value if isinstance(value, option) else _UNFIT
    if option is tuple or typing.get_origin(option) is tuple:
        if not isinstance(value, list | tuple):
            return _UNFIT
        if inner and inner[-1] is not Ellipsis:
            if len(value) != len(inner):
                raise ValueError(f"{where}: got {value!r}, expected {len(inner)} entries")
            elements = list(inner)
        else:
            elements = [inner[0] if inner else Any] * len(value)
        return tuple(
            _convert(element, v, f"{where}[{i}]")
            for i, (element, v) in enumerate(zip(elements, value, strict=True))
        )
    if _is_mapping(option):
        if not isinstance(value, Mapping):
            return _UNFIT
        element = inner[1] if inner else Any
        return {key: _convert(element, v, f"{where}.{key}") for key, v in value.items()}
    if option in (int, float) and isinstance(value, bool):
        return _UNFIT
    if option is float and isinstance(value, int):
        return float(value) if abs(value) < 2**1023 else _UNFIT
    if option in (bool, int, float, str, types.NoneType):
        return value if isinstance(value, option) else _UNFIT
    return _frozen(value)


def _is_mapping(option: Any) -> bool:
    return (typing.get_origin(option) or option) in (dict, Mapping)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _unknown(where: str, key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
    return f"{where}: unknown key {key!r}; {hint}"


def as_json(config: ConfigDict) -> dict[str, Any]:
    """The resolved config as JSON-able nested dicts, tuples as lists."""
    return json.loads(json.dumps(config.to_dict()))


def lines(where: str, section: Mapping[str, Any]) -> list[str]:
    """Lines of a config file that set a section: `    config.extract.text.layers = 6`."""
    found = []
    for name, value in section.items():
        key = f"{where}.{name}"
        found += lines(key, value) if isinstance(value, Mapping) else [f"    {key} = {value!r}"]
    return found


def loaded(config: Any) -> ConfigDict:
    """The config of a flag; the stand-in for a file that cannot be read raises its error here."""
    _ = config.is_locked
    return config


def run_name(config_file: str) -> str:
    """What the runs of a config are called, by its file and argument.

    >>> run_name("configs/baselines.py:deepfm,on=movielens:temporal")
    'baselines-deepfm-on=movielens-temporal'
    """
    file, _, argument = config_file.partition(":")
    words = re.findall(r"[\w+=]+", argument)
    return "-".join([Path(file).stem, *words])


def run_front_door(
    main: Callable[[list[str]], None], define_flags: Callable[[], None] | None = None
) -> None:
    """Runs a command; a user's mistake ends in one line and exit status 2, not in a traceback.

    Args:
        main: The command, given the arguments that are no flags.
        define_flags: Defines its flags. A default config is read by that already, with what the
            command line sets in it.
    """

    def quietly(argv: list[str]) -> None:
        # Libraries report every file they touch; --verbosity=0 shows it.
        if not any(argument.lstrip("-").startswith(("verbosity", "v=")) for argument in sys.argv):
            logging.set_verbosity(logging.ERROR)
        main(argv)

    def told(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except flags.Error as error:
            # The traceback of a config's own error is in the text of this one.
            said, _, trace = str(error).partition("Traceback (most recent call last)")
            last = trace.strip().splitlines()[-1:]
            raise ValueError(" ".join([*said.split(), *last])) from error
        except (AttributeError, KeyError, TypeError) as error:
            # Only the look-up of an override; a bug in a config's own file is not a misspelt key.
            frames = traceback.extract_tb(error.__traceback__)
            if all(frame.filename != config_path.__file__ for frame in frames):
                raise
            raise ValueError(f"unknown config key {_named(error)}") from error

    try:
        told(define_flags or (lambda: None))
        app.run(quietly, flags_parser=lambda argv: told(lambda: flags.FLAGS(argv)))
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # ml_collections keeps this one until the config is read.
        if _NOT_LOADED not in str(error):
            raise
        tried = str(error).split("path]:")[-1]
        print(f"error: --config: cannot be read: {' '.join(tried.split())}", file=sys.stderr)
        sys.exit(2)


def _named(error: Exception) -> str:
    """The key that ml_collections missed, and the nearest one that it found."""
    near = re.search(r'Did you mean "(.+)" instead of "(.+)"', str(error))
    if near:
        return f"{near[2]!r}; did you mean {near[1]!r}?"
    missed = re.fullmatch(r"\W*(\w+)\W*", str(error))
    key = repr(missed[1]) if missed else str(error)
    return f"{key}; the keys are those of the config's file"
