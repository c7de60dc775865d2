"""Packages that can be called, because the function a user wants bears their name."""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any


def call(package: str, module: str, function: str) -> None:
    """Make calling ``package`` call ``function`` of ``module``, which is not loaded before that."""

    class Callable(types.ModuleType):
        def __call__(self, *arguments: Any, **options: Any) -> Any:
            return getattr(importlib.import_module(module), function)(*arguments, **options)

    sys.modules[package].__class__ = Callable
