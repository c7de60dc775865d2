"""What the columns of a raw table mean."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import Any

from autoctr.data.splits import SplitRule, split_from_dict
from autoctr.data.statistics import Kind
from autoctr.errors import UserError

_NAME = re.compile(r"^[^/\\\0]+$")


@dataclasses.dataclass(frozen=True)
class Column:
    """One input of the network.

    ``source`` is the column of the raw table, ``name`` itself when empty: one raw column may feed several
    inputs. ``min_count``: rarer training values share the id of unseen ones. ``bins`` > 0 cuts a number at
    its training quantiles. ``separator`` splits the text of a multi-valued column; list columns need none.
    ``max_length``: values kept, from the front. ``table``: the side table of a vector column, relative to the
    schema file.
    """

    name: str
    kind: Kind = Kind.CATEGORICAL
    source: str | None = None
    min_count: int = 2
    bins: int = 0
    separator: str | None = None
    max_length: int = 20
    table: str | None = None

    def __post_init__(self) -> None:
        where = f"column {self.name}"
        if not _NAME.match(self.name):
            raise UserError(f"{where}: a name must not be empty or hold a slash")
        if self.min_count < 1:
            raise UserError(f"{where}: min_count is {self.min_count}, it must be 1 or more")
        if self.bins < 0 or self.bins == 1:
            raise UserError(f"{where}: bins is {self.bins}, it must be 0 (one standardised number) or 2 or more")
        if self.bins and self.kind is not Kind.NUMERIC:
            raise UserError(f"{where}: bins belongs to kind numeric, this column is {self.kind}")
        if self.max_length < 1:
            raise UserError(f"{where}: max_length is {self.max_length}, it must be 1 or more")
        if self.separator is not None and (not self.separator or self.kind is not Kind.MULTI):
            raise UserError(f"{where}: separator belongs to kind multi and must not be empty")
        if (self.table is not None) != (self.kind is Kind.VECTOR):
            raise UserError(f"{where}: kind vector needs a table (a file with ids and vectors), other kinds have none")

    @property
    def raw(self) -> str:
        """The column of the raw table that is read."""
        return self.source or self.name

    def to_dict(self) -> dict[str, Any]:
        """JSON- and YAML-ready form without the fields left at their defaults."""
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        given = {name: value for name, value in dataclasses.asdict(self).items() if value != defaults[name]}
        return {
            "name": self.name,
            "kind": str(self.kind),
            **{k: v for k, v in given.items() if k not in ("name", "kind")},
        }


@dataclasses.dataclass(frozen=True)
class Schema:
    """The inputs of a table and the roles of its other columns.

    ``labels`` hold 0 or 1. ``domain`` is always a categorical input too. ``user`` groups rows for grouped
    AUC, ``timestamp`` orders them; neither is an input unless it is listed in ``columns``.
    """

    columns: tuple[Column, ...]
    labels: tuple[str, ...]
    domain: str
    user: str | None = None
    timestamp: str | None = None

    def __post_init__(self) -> None:
        if not self.labels:
            raise UserError("the schema names no label; give labels: [a column of 0 and 1]")
        for what, names in (("column", [c.name for c in self.columns]), ("label", list(self.labels))):
            twice = [name for name, count in Counter(names).items() if count > 1]
            if twice:
                raise UserError(f"the schema lists {what} {', '.join(twice)} more than once")
        leaking = sorted({column.raw for column in self.columns} & set(self.labels))
        if leaking:
            raise UserError(f"label {', '.join(leaking)} is also listed as an input; a label cannot be an input")
        if self.domain in self.labels:
            raise UserError(f"{self.domain} cannot be both the domain and a label")
        field = self.domain_column
        if field.kind is not Kind.CATEGORICAL:
            raise UserError(f"the domain column {self.domain} is of kind {field.kind}; it must be categorical")

    @property
    def domain_column(self) -> Column:
        """The input that carries the domain. None of its values is too rare."""
        for column in self.columns:
            if column.name == self.domain:
                return dataclasses.replace(column, min_count=1) if column.kind is Kind.CATEGORICAL else column
        return Column(self.domain, min_count=1)

    @property
    def inputs(self) -> tuple[Column, ...]:
        """The columns, the domain among them."""
        field = self.domain_column
        listed = tuple(field if column.name == field.name else column for column in self.columns)
        return listed if any(column.name == field.name for column in self.columns) else (*listed, field)

    @property
    def raw_columns(self) -> list[str]:
        """Columns of the raw table that are read, labels and roles included."""
        roles = [self.domain_column.raw, *self.labels, self.user, self.timestamp]
        return list(dict.fromkeys([*(c.raw for c in self.inputs), *(role for role in roles if role)]))

    def to_dict(self) -> dict[str, Any]:
        """JSON- and YAML-ready form."""
        roles = {
            "labels": list(self.labels),
            "domain": self.domain,
            "user": self.user,
            "timestamp": self.timestamp,
        }
        return {
            **{name: value for name, value in roles.items() if value is not None},
            "columns": [column.to_dict() for column in self.columns],
        }

    @classmethod
    def from_dict(cls, value: Any, where: str = "schema") -> Schema:
        """Inverse of :meth:`to_dict`; ``where`` opens the error messages.

        Raises:
            UserError: for an unknown field, a wrong type or a missing role.
        """
        return _schema(value, _Places(where, {}))


def load_schema(path: Path) -> Schema:
    """The schema in a YAML file; see :func:`load_schema_and_split`."""
    return load_schema_and_split(path)[0]


def load_schema_and_split(path: Path) -> tuple[Schema, SplitRule | None]:
    """Read a schema file: the schema, and the rule of its ``split`` section (None when there is none).

    Raises:
        UserError: naming the file and the line where possible.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the schema {path}: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML ({getattr(error, 'problem', None) or error})") from error
    places = _Places(str(path), _lines(node))
    split = None
    if isinstance(value, dict) and (section := value.pop("split", None)) is not None:
        if not isinstance(section, dict):
            raise places.error(("split",), f"split is {section!r}, expected a mapping such as {{kind: random}}")
        try:
            split = split_from_dict(section)
        except UserError as error:
            raise places.error(("split",), str(error)) from error
    return _schema(value, places), split


@dataclasses.dataclass(frozen=True)
class _Places:
    """Where every entry of a file stands, for error messages."""

    file: str
    lines: dict[tuple[str | int, ...], int]

    def error(self, place: tuple[str | int, ...], message: str) -> UserError:
        while place and place not in self.lines:
            place = place[:-1]
        line = f", line {self.lines[place]}" if place in self.lines else ""
        return UserError(f"{self.file}{line}: {message}")


def _lines(node: Any, place: tuple[str | int, ...] = ()) -> dict[tuple[str | int, ...], int]:
    if node is None:
        return {}
    found = {place: node.start_mark.line + 1}
    if node.id == "mapping":
        for key, child in node.value:
            found |= _lines(child, (*place, key.value)) | {(*place, key.value): key.start_mark.line + 1}
    elif node.id == "sequence":
        for position, child in enumerate(node.value):
            found |= _lines(child, (*place, position))
    return found


def _schema(value: Any, places: _Places) -> Schema:
    if not isinstance(value, dict):
        raise places.error((), "expected a mapping with columns, labels and domain")
    legal = [f.name for f in dataclasses.fields(Schema)]
    for name in value:
        if name not in legal:
            raise places.error((name,), f"unknown field {name!r}; legal are {', '.join([*legal, 'split'])}")
    for name in ("columns", "labels", "domain"):
        if name not in value:
            raise places.error((), f"{name} is missing; a schema needs columns, labels and domain")
    if not isinstance(value["columns"], list):
        raise places.error(("columns",), f"columns is {value['columns']!r}, expected a list")
    columns = tuple(_column(entry, places, ("columns", row)) for row, entry in enumerate(value["columns"]))
    labels = value["labels"]
    labels = [labels] if isinstance(labels, str) else labels
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise places.error(("labels",), f"labels is {value['labels']!r}, expected a list of column names")
    roles: dict[str, Any] = {}
    for name in ("domain", "user", "timestamp"):
        role = value.get(name)
        if not isinstance(role, str) and (name == "domain" or role is not None):
            raise places.error((name,), f"{name} is {role!r}, expected the name of a column")
        roles[name] = role
    try:
        return Schema(columns, tuple(labels), **roles)
    except UserError as error:
        raise places.error((), str(error)) from error


def _column(value: Any, places: _Places, place: tuple[str | int, ...]) -> Column:
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise places.error(place, f"{value!r} is not a column; expected {{name: ..., kind: ...}}")
    legal = {f.name: f.type for f in dataclasses.fields(Column)}
    arguments = dict(value)
    for name, entry in value.items():
        if name not in legal:
            fields = ", ".join(legal)
            raise places.error((*place, name), f"column {value['name']}: unknown field {name!r}; legal are {fields}")
        whole = legal[name] == "int"
        if entry is None and "None" in str(legal[name]):
            continue
        if not isinstance(entry, int if whole else str) or (whole and isinstance(entry, bool)):
            kind = "a whole number" if whole else "a text"
            raise places.error((*place, name), f"column {value['name']}: {name} is {entry!r}, expected {kind}")
    if "kind" in arguments:
        try:
            arguments["kind"] = Kind(arguments["kind"])
        except ValueError:
            kinds = ", ".join(kind.value for kind in Kind)
            message = f"column {value['name']}: unknown kind {value['kind']!r}; legal are {kinds}"
            raise places.error((*place, "kind"), message) from None
    try:
        return Column(**arguments)
    except UserError as error:
        raise places.error(place, str(error)) from error
