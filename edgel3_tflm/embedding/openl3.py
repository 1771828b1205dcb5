"""Arguments of openl3's functions that edgel3's functions do not have."""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import ParamSpec, TypeVar

from edgel3_tflm.errors import EdgeL3Error

_REMEDIES = {
    "input_repr": "leave it out: all networks here take the same log-mel spectrogram",
    "content_type": "leave it out: model_type chooses the network",
    "embedding_size": "give emb_dim, with model_type='sea'",
    "frontend": "leave it out: the frontend is the published networks' own",
    "batch_size": "give it to get_embedding or process_file",
}

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def refuse_openl3_arguments(
    function: Callable[_Parameters, _Result],
) -> Callable[_Parameters, _Result]:
    """Make a function raise EdgeL3Error for an argument that only openl3's function has.

    The message says what to do instead. Other unknown arguments raise TypeError as usual.
    """
    known = signature(function).parameters

    @wraps(function)
    def checked(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        for name in kwargs:
            if name in _REMEDIES and name not in known:
                raise EdgeL3Error(
                    f"{function.__name__} has no argument {name!r}, which is openl3's:"
                    f" {_REMEDIES[name]}"
                )
        return function(*args, **kwargs)

    return checked
