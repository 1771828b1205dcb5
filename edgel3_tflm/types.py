"""Types that several packages share: arrays by element type, and the progress callback."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
RealArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]
Int8Array = npt.NDArray[np.int8]
Int16Array = npt.NDArray[np.int16]
BoolArray = npt.NDArray[np.bool_]

Progress = Callable[[str, int, int], None]
"""Progress callback: ``(step, done, total)``; ``total`` is 0 if unknown."""
