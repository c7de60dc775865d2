"""autoctr: finds, proves and exports one click-through-rate model for many domains.

import autoctr

study = autoctr.search("taobao-sim", trials=20)
study = autoctr.load_study("taobao-sim-joint")
autoctr.export("taobao-sim-joint", "model/")
certificate = autoctr.confirm("taobao-sim-joint")
comparison = autoctr.compare("taobao-sim", studies=["taobao-sim-joint"])
autoctr.predict_table("model/", "events.parquet", "scores.parquet")
autoctr.refit("model/card.json", "newer/", table="newer.parquet", schema="schema.yaml")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from autoctr.errors import UserError

if TYPE_CHECKING:
    from autoctr.export.predict_table import predict_table
    from autoctr.search.compare import compare
    from autoctr.search.confirm import confirm
    from autoctr.search.deliver import export
    from autoctr.search.refit import refit
    from autoctr.search.run import load_study, resume, search

__version__ = "0.1.0"
__all__ = [
    "UserError",
    "__version__",
    "compare",
    "confirm",
    "export",
    "load_study",
    "predict_table",
    "refit",
    "resume",
    "search",
]

_LAZY = {
    "search": "autoctr.search",
    "export": "autoctr.export",
    "compare": "autoctr.search.compare",
    "confirm": "autoctr.search.confirm",
    "predict_table": "autoctr.export.predict_table",
    "refit": "autoctr.search.refit",
    "resume": "autoctr.search.run",
    "load_study": "autoctr.search.run",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line answers at once."""
    if name not in _LAZY:
        raise AttributeError(f"module 'autoctr' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    return module if name in ("search", "export") else getattr(module, name)
