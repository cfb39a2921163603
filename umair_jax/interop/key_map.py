"""Names and layouts of weights between two libraries: one table of rules read in both directions.

A rule pairs two templates. A field stands for a whole number, and may be shifted by one:
`stages.{s-1}.layers.{b}.bias` here and `layer{s}/block{b}/bias` there are the same array for every
s and b. Nothing is lost on the way in silence: a name without a rule, two names for one array, an
array that nothing fills and a wrong shape are all collected, and raised once.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

LISTED = 30


class Transform(enum.Enum):
    """How an array is laid out there, seen from here.

    The value is the order of their axes that makes ours; None leaves any array alone.
    """

    IDENTITY = None
    CONVOLUTION = (2, 3, 1, 0)  # torch's OIHW to our HWIO
    LINEAR = (1, 0)  # torch's [out, in] to our [in, out]

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        """Their array in our layout, a view; as it is where its rank does not fit."""
        if self.value is None or array.ndim != len(self.value):
            return array
        return array.transpose(self.value)

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        """Our array in their layout, a view."""
        return array if self.value is None else array.transpose(np.argsort(self.value))

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape there of an array that has `shape` here."""
        return shape if self.value is None else tuple(shape[i] for i in np.argsort(self.value))


@dataclasses.dataclass(frozen=True)
class Rule:
    """One kind of array by its two names.

    Attributes:
        theirs: Template of its names there.
        ours: Template of its names here; empty where it has no place here and is dropped.
        transform: Its layout.
        reason: Why it is dropped.
    """

    theirs: str
    ours: str
    transform: Transform = Transform.IDENTITY
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Translation:
    """Arrays under our names, in our layout, and what became of the others.

    Attributes:
        arrays: By our name; float32.
        origin: (their name, rule) by our name.
        dropped: Why, by their name.
        problems: One line each.
        rules: What it was made with.
    """

    arrays: dict[str, np.ndarray]
    origin: dict[str, tuple[str, Rule]]
    dropped: dict[str, str]
    problems: list[str]
    rules: Sequence[Rule]

    def complete(self, expected: Mapping[str, tuple[int, ...]], what: str) -> None:
        """Checks that exactly the expected arrays are there, with usable values.

        Args:
            expected: Shapes by our name.
            what: What the arrays were taken for, for the error.

        Raises:
            ValueError: Lists all problems, by their names.
        """
        problems = list(self.problems)
        for ours, shape in expected.items():
            if ours not in self.origin:
                named = their_name(ours, self.rules)
                name = f"{named[0]} (for {ours})" if named else ours
                problems.append(f"missing: {name}")
                continue
            theirs, rule = self.origin[ours]
            array = self.arrays[ours]
            if array.shape != shape:
                got = rule.transform.their_shape(array.shape) if _fits(array, rule) else array.shape
                wanted = rule.transform.their_shape(shape)
                problems.append(f"shape of {theirs}: got {got}, expected {wanted}")
            elif not np.isfinite(array).all():
                problems.append(f"values of {theirs}: got infinities or NaN, expected numbers")
        problems += [
            f"unknown: {theirs}"
            for ours, (theirs, _) in self.origin.items()
            if ours not in expected
        ]
        if problems:
            raise ValueError(f"{what}: {listed(problems)}")


def listed(problems: Sequence[str]) -> str:
    """How many problems, and the first of them, one a line."""
    rest = [f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return count + "\n  " + "\n  ".join([*problems[:LISTED], *rest])


def to_ours(
    source: Mapping[str, np.ndarray], rules: Sequence[Rule], prefixes: Sequence[str] = ()
) -> Translation:
    """Arrays under our names; see `Translation.complete` for what must follow.

    Args:
        source: Arrays by their names.
        rules: The first whose template fits a name is used.
        prefixes: Taken from the front of every name, see `bare`.
    """
    literal = {rule.theirs: rule for rule in rules if "{" not in rule.theirs}
    patterns = [(_pattern(rule.theirs), rule) for rule in rules if "{" in rule.theirs]
    found = Translation({}, {}, {}, [], rules)
    for theirs, array in source.items():
        name = bare(theirs, prefixes)
        matches = ((pattern.fullmatch(name), rule) for pattern, rule in patterns)
        match, rule = next(((m, r) for m, r in matches if m), (None, literal.get(name)))
        if rule is None:
            found.problems.append(f"unknown: {theirs}")
            continue
        if not rule.ours:
            found.dropped[theirs] = rule.reason
            continue
        ours = _filled(rule.ours, _values(rule.theirs, match)) if match else rule.ours
        if ours in found.origin:
            found.problems.append(f"twice the same: {theirs} and {found.origin[ours][0]}")
            continue
        if not jnp.issubdtype(array.dtype, jnp.floating):
            found.problems.append(f"dtype of {theirs}: got {array.dtype}, expected floats")
        found.origin[ours] = (theirs, rule)
        found.arrays[ours] = rule.transform.to_ours(np.asarray(array, np.float32))
    return found


def bare(name: str, prefixes: Sequence[str]) -> str:
    """The name without the prefixes, each taken from its front once, in this order."""
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    return name


def to_theirs(arrays: Mapping[str, np.ndarray], rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """Arrays under their names, in their layout; what is dropped on the way here is not made up.

    Raises:
        ValueError: A name has no rule; lists all of them.
    """
    found, unknown = {}, []
    for ours, array in arrays.items():
        named = their_name(ours, rules)
        if named is None:
            unknown.append(f"unknown: {ours}")
        else:
            found[named[0]] = named[1].transform.to_theirs(array)
    if unknown:
        raise ValueError(f"weights that have no name there: {listed(unknown)}")
    return found


def their_name(ours: str, rules: Sequence[Rule]) -> tuple[str, Rule] | None:
    """How an array of ours is called there, and the rule that says so; None without any."""
    for rule in rules:
        if rule.ours == ours:
            return rule.theirs, rule
        if "{" in rule.ours and (match := _pattern(rule.ours).fullmatch(ours)):
            return _filled(rule.theirs, _values(rule.ours, match)), rule
    return None


_FIELD = re.compile(r"\{(\w+)(-1)?\}")


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    # Alternately literal text, a field's name and its shift.
    parts = _FIELD.split(template)
    literals, names = map(re.escape, parts[::3]), parts[1::3]
    fields = [f"(?P<{name}>0|[1-9][0-9]*)" for name in names]
    return re.compile(
        "".join(x for pair in zip(literals, [*fields, ""], strict=True) for x in pair)
    )


def _values(template: str, match: re.Match[str]) -> dict[str, int]:
    shifts = {name: 1 if shift else 0 for name, shift in _FIELD.findall(template)}
    return {name: int(text) + shifts[name] for name, text in match.groupdict().items()}


def _filled(template: str, values: Mapping[str, int]) -> str:
    return _FIELD.sub(lambda field: str(values[field[1]] - (1 if field[2] else 0)), template)


def _fits(array: np.ndarray, rule: Rule) -> bool:
    return rule.transform.value is None or array.ndim == len(rule.transform.value)
