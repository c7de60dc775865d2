"""Arrays on disk that grow row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class ArrayFile:
    """A .npy file of known shape that is written row by row: nothing of it stays in memory."""

    def __init__(self, path: Path, dtype: type[Any], shape: tuple[int, ...]) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 closed by close()
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(self._file, header)
        self._dtype = dtype

    def append(self, array: npt.NDArray[Any]) -> None:
        """Next rows."""
        np.ascontiguousarray(array, self._dtype).tofile(self._file)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
