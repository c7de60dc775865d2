"""Proposing candidates, running trials and keeping the study. The only part that knows Optuna and SQLite.

The package is also a function: ``autoctr.search(...)`` is :func:`autoctr.search.run.search`.
"""

from __future__ import annotations

from autoctr.callable_package import call

call(__name__, "autoctr.search.run", "search")
