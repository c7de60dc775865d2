"""A winner as a folder that runs without autoctr.

:func:`autoctr.export.folder.write_folder` writes it, :func:`autoctr.export.verify.verify_folder` checks it.
``source.py`` writes the model's source, ``state.py`` names its weights, ``bundle.py`` makes ``predict.py`` of
``standalone.py``.

The package is also a function: ``autoctr.export(...)`` is :func:`autoctr.search.deliver.export`.
"""

from __future__ import annotations

from autoctr.callable_package import call

call(__name__, "autoctr.search.deliver", "export")
