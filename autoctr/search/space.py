"""A search space: which fields of a candidate vary, read from YAML and checked line by line."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from autoctr.errors import UserError
from autoctr.model.candidate import RANGES, Candidate, field_kinds
from autoctr.shipped import find, read_yaml

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = str | int | float | bool


@dataclasses.dataclass(frozen=True)
class Choices:
    """A field that takes one of some values."""

    values: tuple[Value, ...]

    def contains(self, value: Any) -> bool:
        """Whether ``value`` is one of them."""
        return value in self.values

    def nearest(self, value: Any, but: Any) -> Value | None:
        """The value nearest to ``value`` other than ``but``; None if there is none."""
        others = [choice for choice in self.values if choice != but]
        if value in others or not others:
            return value if others else None
        if isinstance(value, str):
            return None
        return min(others, key=lambda choice: abs(float(choice) - value))

    def examples(self) -> Sequence[Value]:
        """Values to try, the plainest first."""
        return self.values

    def draw(self, source: random.Random) -> Value:
        """One of them at random."""
        return source.choice(self.values)

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"choices": list(self.values)}


@dataclasses.dataclass(frozen=True)
class Interval:
    """A field that takes any number between two bounds; ``log``: evenly in its logarithm."""

    low: float
    high: float
    log: bool
    integer: bool

    def contains(self, value: Any) -> bool:
        """Whether ``value`` lies between the bounds."""
        return bool(self.low <= value <= self.high)

    def nearest(self, value: Any, but: Any) -> Value | None:
        """The number nearest to ``value``."""
        number = min(max(float(value), self.low), self.high)
        return round(number) if self.integer else number

    def examples(self) -> Sequence[Value]:
        """Its middle and its ends."""
        middle = (self.low + self.high) / 2
        values = [middle, self.low, self.high]
        return [int(value) for value in values] if self.integer else values

    def draw(self, source: random.Random) -> Value:
        """A number at random, even in its logarithm if ``log``."""
        if self.integer and not self.log:
            return source.randint(int(self.low), int(self.high))
        if self.log:
            value = math.exp(source.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = source.uniform(self.low, self.high)
        value = min(max(value, self.low), self.high)
        return round(value) if self.integer else value

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"low": self.low, "high": self.high, "log": self.log}


@dataclasses.dataclass(frozen=True)
class Space:
    """What varies (``vary``), what is set for the whole study (``fix``); other fields keep their defaults."""

    name: str
    description: str
    fix: dict[str, Value]
    vary: dict[str, Choices | Interval]

    def base(self) -> Candidate:
        """The defaults with the fixed fields set."""
        return Candidate(**self.fix)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, for the fingerprint."""
        return {"fix": self.fix, "vary": {name: part.to_dict() for name, part in self.vary.items()}}

    def candidate(self, values: dict[str, Any]) -> Candidate:
        """The candidate with the given values of the varied fields."""
        return self.base().replace(**values)

    def sets(self, name: str) -> bool:
        """Whether the space varies or fixes the field."""
        return name in self.vary or name in self.fix

    def can_take(self, name: str, values: Sequence[Value]) -> bool:
        """Whether some candidate of the space has one of ``values`` in the field."""
        part = self.vary.get(name)
        if part is None:
            return self.fix.get(name) in values
        return any(part.contains(value) for value in values)

    def switches_on(self, name: str, off: Value) -> bool:
        """Whether some candidate of the space has another value of the field than ``off``."""
        part = self.vary.get(name)
        if part is None:
            return bool(self.fix.get(name, off) != off)
        return not isinstance(part, Choices) or any(value != off for value in part.values)

    def without(self, *names: str) -> Space:
        """The space in which the named fields keep their defaults."""
        fix = {name: value for name, value in self.fix.items() if name not in names}
        vary = {name: part for name, part in self.vary.items() if name not in names}
        return dataclasses.replace(self, fix=fix, vary=vary)

    def with_fixed(self, **fields: Value) -> Space:
        """The space in which the named fields have one value."""
        vary = {name: part for name, part in self.vary.items() if name not in fields}
        return dataclasses.replace(self, fix={**self.fix, **fields}, vary=vary)

    def within(self, candidate: Candidate) -> dict[str, Any]:
        """The candidate's values of those varied fields whose range holds them."""
        values = {name: getattr(candidate, name) for name in self.vary}
        return {name: value for name, value in values.items() if self.vary[name].contains(value)}


def load_space(name: str) -> Space:
    """A shipped space by its name, or a YAML file by its path.

    Raises:
        UserError: with file and line for an unknown field, a wrong type, an illegal value or an empty range.
    """
    path = find("search_spaces", name)
    return _Reader(path).read()


class _Reader:
    def __init__(self, path: Path, depth: int = 0) -> None:
        self.path, self.depth = path, depth

    def fail(self, node: yaml.Node, problem: str) -> UserError:
        return UserError(f"{self.path}:{node.start_mark.line + 1}: {problem}")

    def read(self) -> Space:
        try:
            root = yaml.compose(read_yaml(self.path), Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            problem = str(getattr(error, "problem", None) or error).replace("\n", " ")
            raise UserError(f"{self.path}{line}: not YAML ({problem})") from error
        if root is None:
            raise UserError(f"{self.path}:1: the file is empty; it needs `vary`, and may have `fix` and `description`")
        sections = self.mapping(root, "a search space")
        for section, (name, _) in sections.items():
            if section not in ("description", "extends", "fix", "vary"):
                raise self.fail(name, f"unknown section {section!r}; legal are description, extends, fix and vary")
        fix: dict[str, Value] = {}
        vary: dict[str, Choices | Interval] = {}
        if "extends" in sections:
            parent = self.parent(sections["extends"][1])
            fix, vary = dict(parent.fix), dict(parent.vary)
        own: set[str] = set()
        if "fix" in sections:
            for field, (name, node) in self.mapping(sections["fix"][1], "fix").items():
                fix[field] = self.value(self.known(field, name), node)
                vary.pop(field, None)
                own.add(field)
        if "vary" in sections:
            for field, (name, node) in self.mapping(sections["vary"][1], "vary").items():
                if field in own:
                    raise self.fail(name, f"{field} stands under fix and under vary; it can do only one")
                fix.pop(field, None)
                vary[field] = self.part(self.known(field, name), node)
        if not vary:
            raise self.fail(root, "nothing varies; put at least one field under vary")
        description = self.text("description", sections["description"][1]) if "description" in sections else ""
        space = Space(self.path.stem, description, fix, vary)
        try:
            space.base()
        except ValueError as error:
            raise self.fail(
                sections.get("fix", (root, root))[0], f"the fixed fields do not go together: {error}"
            ) from None
        return space

    def parent(self, node: yaml.Node) -> Space:
        """The space that this one extends: a shipped one, or a file beside this one."""
        name = self.text("extends", node)
        beside = self.path.parent / name
        is_file = beside.suffix in (".yaml", ".yml")
        if is_file and not beside.is_file():
            raise self.fail(node, f"extends {name}, but there is no {beside}")
        try:
            path = beside if is_file else find("search_spaces", name)
        except UserError as error:
            raise self.fail(node, f"extends {name}: {error}") from None
        if path.resolve() == self.path.resolve() or self.depth > 8:
            raise self.fail(node, f"extends {name} leads back to this file")
        return _Reader(path, self.depth + 1).read()

    def mapping(self, node: yaml.Node, what: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            raise self.fail(node, f"{what} must be a mapping (name: value)")
        result: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.fail(key, f"a name in {what} must be one word")
            if key.value in result:
                raise self.fail(key, f"{key.value} stands here twice")
            result[str(key.value)] = (key, value)
        return result

    def known(self, field: str, node: yaml.Node) -> str:
        legal = [name for name in field_kinds() if name != "seed"]
        if field not in legal:
            raise self.fail(node, f"unknown field {field!r}; legal are {', '.join(legal)}")
        return field

    def text(self, name: str, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self.fail(node, f"{name} must be one value, not a list or a mapping")
        return str(node.value)

    def flag(self, name: str, node: yaml.Node) -> bool:
        text = self.text(name, node)
        if text.lower() not in ("true", "false"):
            raise self.fail(node, f"{name} is {text!r}; legal is true or false")
        return text.lower() == "true"

    def value(self, field: str, node: yaml.Node) -> Value:
        kind, words = field_kinds()[field]
        text = self.text(field, node)
        if kind is str:
            if text not in words:
                raise self.fail(node, f"{field} is {text!r}; legal is one of {', '.join(words)}")
            return text
        if kind is bool:
            return self.flag(field, node)
        try:
            number = float(text)
        except ValueError:
            raise self.fail(node, f"{field} is {text!r}; it must be a number") from None
        low, high = RANGES[field]
        if not low <= number <= high:
            raise self.fail(node, f"{field} is {text}; legal is {low:g} to {high:g}")
        if kind is int:
            if number != math.floor(number):
                raise self.fail(node, f"{field} is {text}; it must be a whole number")
            return int(number)
        return number

    def part(self, field: str, node: yaml.Node) -> Choices | Interval:
        parts = self.mapping(node, field)
        if set(parts) == {"choices"}:
            listed = parts["choices"][1]
            if not isinstance(listed, yaml.SequenceNode) or not listed.value:
                raise self.fail(listed, f"{field} needs a list of choices with at least one value")
            values = tuple(self.value(field, item) for item in listed.value)
            if len(set(values)) < len(values):
                raise self.fail(listed, f"{field} lists a choice twice")
            return Choices(values)
        if not {"low", "high"} <= set(parts) <= {"low", "high", "log"}:
            raise self.fail(node, f"{field} needs either choices, or low and high (and log: true or false)")
        kind = field_kinds()[field][0]
        if kind not in (int, float):
            raise self.fail(node, f"{field} has no numbers between two bounds; list its choices")
        low, high = (float(self.value(field, parts[end][1])) for end in ("low", "high"))
        log = False
        if "log" in parts:
            key, flag = parts["log"]
            log = self.flag("log", flag)
            if log and low <= 0:
                raise self.fail(key, f"{field} is spaced by logarithm, so low must be above 0, not {low:g}")
        if low >= high:
            raise self.fail(parts["low"][0], f"{field} has an empty range: low {low:g} is not below high {high:g}")
        return Interval(low, high, log, kind is int)
