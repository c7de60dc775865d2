"""Names of columns and tasks as Python: attribute names and string literals of the generated model."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterable


def identifiers(names: Iterable[str], prefix: str) -> dict[str, str]:
    """A distinct attribute name for every name, such as ``vectors_item_id`` for ``item id``."""
    result: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        stem = f"{prefix}_{re.sub(r'[^0-9a-zA-Z]+', '_', name).strip('_')}".rstrip("_")
        candidate, number = stem, 2
        while candidate in taken or keyword.iskeyword(candidate):
            candidate, number = f"{stem}_{number}", number + 1
        taken.add(candidate)
        result[name] = candidate
    return result


def literal(text: str) -> str:
    """``text`` as a Python string literal on one line."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\x7f")
