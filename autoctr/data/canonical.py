"""The one text form of a value: the same whether it was read as integer, float or text."""

from __future__ import annotations

import datetime
import decimal
import re
from typing import Any

import numpy as np

_WHOLE = re.compile(r"^-?\d+\.0$")
_TRUTH = {"True": "true", "False": "false"}


def canonical(value: Any) -> str | None:
    """Text form of a raw value; None for what counts as missing (None, NaN, empty text).

    ``3``, ``3.0`` and ``"3.0"`` all give ``"3"``; ``"007"`` stays as it is; truth values give
    ``true``/``false``.
    """
    if value is None:
        return None
    if isinstance(value, str):
        if not value:
            return None
        if value[-2:] == ".0" and _WHOLE.match(value):
            return value[:-2]
        return _TRUTH.get(value, str(value))
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return _of_float(value)
    if isinstance(value, decimal.Decimal):
        return canonical(float(value))
    if isinstance(value, bytes):
        return canonical(value.decode("utf-8", "replace"))
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else canonical(value.astype("datetime64[us]").item())
    if isinstance(value, datetime.datetime):
        # pandas has no plain dates: midnight is the day
        return None if value != value else value.isoformat().removesuffix("T00:00:00")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return canonical(str(value))


def _of_float(value: Any) -> str | None:
    if value != value:
        return None
    if abs(value) < 2**63 and value == int(value):
        return str(int(value))
    # float32 keeps its own shortest form, so that 0.1 read from a float32 column equals "0.1" read from text
    return str(value) if isinstance(value, np.floating) else repr(value)


def natural(text: str) -> tuple[int, int, str]:
    """Sort key: whole numbers by value first, then texts."""
    try:
        return (0, int(text), text)
    except ValueError:
        return (1, 0, text)
