"""Finding the raw files of a preset, with one clear error when they are not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoctr.errors import UserError


def find(data: Path | None, folder: str, sets: Sequence[Sequence[str]], hint: str) -> list[Path]:
    """The first set of file names that lies complete in ``data`` or in ``data/folder``.

    Without ``data`` the place is ``./data``.

    Raises:
        UserError: naming the missing files of the first set, where they were looked for, and ``hint``.
    """
    root = Path("data") if data is None else Path(data)
    places = [root, root / folder]
    for place in places:
        for names in sets:
            if all((place / name).is_file() for name in names):
                return [place / name for name in names]
    nearest = max(places, key=lambda place: sum((place / name).is_file() for name in sets[0]))
    missing = ", ".join(name for name in sets[0] if not (nearest / name).is_file())
    raise UserError(f"missing {missing}; looked in {places[0]} and {places[1]} (set --data DIR). {hint}")
