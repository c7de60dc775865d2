"""Files that come with the package: search spaces and study recipes."""

from __future__ import annotations

from pathlib import Path

from autoctr.errors import UserError


def shipped(kind: str) -> Path:
    """The folder of shipped ``search_spaces`` or ``studies``: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def names(kind: str) -> list[str]:
    """Names of the shipped files of a kind."""
    return sorted(path.stem for path in shipped(kind).glob("*.yaml"))


def find(kind: str, name: str) -> Path:
    """The file of a shipped name, or ``name`` itself where it is a path to a YAML file.

    Raises:
        UserError: if there is neither.
    """
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise UserError(f"there is no file {name}; give a YAML file or one of: {', '.join(names(kind))}")
    if name not in names(kind):
        what = "search space" if kind == "search_spaces" else "recipe"
        raise UserError(f"unknown {what} {name!r}; legal are {', '.join(names(kind))}, or the path of a .yaml file")
    return shipped(kind) / f"{name}.yaml"


def read_yaml(path: Path) -> str:
    """The text of a YAML file.

    Raises:
        UserError: if it cannot be read or is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} ({error}); it must be a YAML file in UTF-8") from error
