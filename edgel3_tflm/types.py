"""Types that several packages share: arrays by element type, and the progress callback."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

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


class _NullAsNan:
    """Tells pydantic to read null as NaN.

    Only a model with such a field loads pydantic, which is slow to import.
    """

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_wrap_validator_function(
            lambda value, read: math.nan if value is None else read(value), handler(source)
        )


JsonFloat = Annotated[float, _NullAsNan]
"""A float that a program writes to JSON as null if it is infinite or NaN; null is read as NaN."""


@dataclass(frozen=True)
class Format:
    """The fields ``format`` and ``format_version`` that a file must have.

    The version grows when earlier readers would misread a file. New fields that they can ignore do
    not change it.

    Parameters
    ----------
    name : str
    version : int
    remedy : str
        What the user should do about a damaged file; the end of the error message.
    """

    name: str
    version: int
    remedy: str
