"""Proposing candidates, running trials and keeping the study. The only part that knows Optuna and SQLite.

The package is also a function: ``autoctr.search(...)`` is :func:`autoctr.search.run.search`.
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    """A package that can be called, because the function a user wants bears its name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from autoctr.search.run import search

        return search(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
