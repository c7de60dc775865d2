"""A winner as a folder that runs without autoctr.

:func:`autoctr.export.folder.write_folder` writes it, :func:`autoctr.export.verify.verify_folder` checks it,
:func:`autoctr.export.served.load_format` loads it and :func:`autoctr.export.bench.bench` times it.
``generate.py`` makes the model's source and names its weights, for every family of networks: ``fusion_*.py`` for the
searched one, ``multidomain_*.py`` for the others, ``frame.py``, ``plan.py`` and ``state.py`` for what they share.
``bundle.py`` makes ``predict.py`` of ``standalone.py``. ``traced.py`` writes the other formats of ``formats.py``, which
are traced from the generated model.

The package is also a function: ``autoctr.export(...)`` is :func:`autoctr.search.deliver.export`.
"""

from __future__ import annotations

from autoctr.callable_package import call

call(__name__, "autoctr.search.deliver", "export")
