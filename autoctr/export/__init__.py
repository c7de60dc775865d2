"""A winner as a folder that runs without autoctr.

:func:`autoctr.export.folder.write_folder` writes it, :func:`autoctr.export.verify.verify_folder` checks it.
``source.py`` writes the model's source, ``state.py`` names its weights, ``bundle.py`` makes ``predict.py`` of
``standalone.py``.

The package is also a function: ``autoctr.export(...)`` is :func:`autoctr.search.deliver.export`.
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    """A package that can be called, because the function a user wants bears its name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from autoctr.search.deliver import export

        return export(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
