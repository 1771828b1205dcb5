"""Float convolutions and matrix products that skip zeros.

TensorFlow multiplies the zeros of a pruned network as well. The C functions in
``sparse_products.c`` do not, and they return the same bytes on every processor.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.cores import available_cores
from edgel3_tflm.types import FloatArray, IntArray

try:
    from edgel3_tflm.converters.quantization._sparse_products import ffi, lib
except ImportError:  # built without a C compiler: everything is computed as if it were dense
    lib = None

# Share of weights that are not zero, from which on TensorFlow's dense products are faster. Per
# weight, they compute about twice as fast.
_DENSE_SHARE = 0.5


def is_sparse(kernel: npt.NDArray[Any]) -> bool:
    """Whether skipping the zeros of a kernel saves time, and the C functions were built."""
    return lib is not None and np.count_nonzero(kernel) < _DENSE_SHARE * kernel.size


@lru_cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(available_cores())


def _pointer(values: npt.NDArray[Any], ctype: str = "float[]") -> Any:
    return ffi.from_buffer(ctype, values)


@dataclass(frozen=True)
class Taps:
    """The weights of a matrix that are not zero, sorted by their output.

    Parameters
    ----------
    begins : numpy.ndarray, shape (outputs + 1,), uint32
        The first tap of each output, and the number of taps.
    inputs, outputs : numpy.ndarray, shape (taps,), int64
    """

    begins: npt.NDArray[np.uint32]
    inputs: IntArray
    outputs: IntArray

    @classmethod
    def of(cls, matrix: npt.NDArray[Any]) -> "Taps":
        """Return the taps of a matrix of shape (inputs, outputs)."""
        outputs, inputs = np.nonzero(matrix.T)
        begins = np.searchsorted(outputs, np.arange(matrix.shape[1] + 1)).astype(np.uint32)
        return cls(begins, inputs, outputs)

    def multiply(
        self,
        weights: FloatArray,
        values: FloatArray,
        offsets: npt.NDArray[np.uint32],
        bias: FloatArray,
        columns: int,
    ) -> FloatArray:
        """Multiply by columns of values.

        Parameters
        ----------
        weights : numpy.ndarray, shape (taps,), float32
        values : numpy.ndarray, float32, contiguous
        offsets : numpy.ndarray, shape (taps,), uint32
            Where in ``values`` the columns of each tap's input begin.
        bias : numpy.ndarray, shape (outputs,), float32
        columns : int

        Returns
        -------
        numpy.ndarray, shape (outputs, columns), float32
        """
        self._check(values, offsets, columns)
        sums = np.empty((len(self.begins) - 1, columns), np.float32)
        arguments = (
            _pointer(values),
            _pointer(self.begins, "uint32_t[]"),
            _pointer(offsets, "uint32_t[]"),
            _pointer(weights),
            _pointer(bias),
        )
        self._run(
            lambda first, end: lib.edgel3_sparse_multiply(
                *arguments, first, end, columns, _pointer(sums)
            )
        )
        return sums

    def correlate(
        self, values: FloatArray, offsets: npt.NDArray[np.uint32], errors: FloatArray
    ) -> FloatArray:
        """Return the gradient of the weights, from that of the product.

        Parameters
        ----------
        values, offsets : numpy.ndarray
            As for :meth:`multiply`.
        errors : numpy.ndarray, shape (outputs, columns), float32, contiguous

        Returns
        -------
        numpy.ndarray, shape (taps,), float32
        """
        columns = errors.shape[1]
        self._check(values, offsets, columns)
        gradients = np.empty(len(self.inputs), np.float32)
        arguments = (
            _pointer(values),
            _pointer(self.begins, "uint32_t[]"),
            _pointer(offsets, "uint32_t[]"),
            _pointer(errors),
        )
        self._run(
            lambda first, end: lib.edgel3_sparse_correlate(
                *arguments, first, end, columns, _pointer(gradients)
            )
        )
        return gradients

    def _check(self, values: FloatArray, offsets: npt.NDArray[np.uint32], columns: int) -> None:
        """Raise an error if a tap would read behind the end of the values."""
        if len(offsets) and int(offsets.max()) + columns > values.size:
            raise ValueError(f"expected at least {int(offsets.max()) + columns} values")

    def _run(self, compute: Callable[[int, int], None]) -> None:
        """Compute parts of the outputs, with about equally many taps, in parallel."""
        parts = available_cores()
        shares = np.linspace(0, len(self.inputs), parts + 1)
        ends = np.searchsorted(self.begins, shares)
        ends[0], ends[-1] = 0, len(self.begins) - 1
        list(_threads().map(compute, ends[:-1].tolist(), ends[1:].tolist()))


@dataclass(frozen=True)
class SparseConvolution:
    """A 3x3 convolution (stride 1, 'same') that skips the zeros of its kernel.

    Parameters
    ----------
    taps : Taps
        Of the kernel as a matrix, whose inputs are rows, columns and channels.
    weights : numpy.ndarray, shape (taps,), float32
    """

    taps: Taps
    weights: FloatArray

    @classmethod
    def of(cls, kernel: FloatArray) -> "SparseConvolution":
        """Return the convolution of a kernel of shape (3, 3, in, out)."""
        matrix = kernel.reshape(-1, kernel.shape[-1])
        taps = Taps.of(matrix)
        return cls(taps, matrix[taps.inputs, taps.outputs])

    def run(self, maps: FloatArray, bias: FloatArray) -> FloatArray:
        """Compute the pre-activations.

        Parameters
        ----------
        maps : numpy.ndarray, shape (n, rows, columns, in), float32
        bias : numpy.ndarray, shape (out,), float32

        Returns
        -------
        numpy.ndarray, shape (n, rows, columns, out), float32
        """
        tf = load_backend().tf
        count, rows, columns, channels = maps.shape
        # Each channel's map has a frame of zeros. In memory, a tap's inputs for all positions of
        # the map follow one another; between two rows are two positions that are not used.
        width = columns + 2
        tap, channel = np.divmod(self.taps.inputs, channels)
        row, column = np.divmod(tap, 3)
        offsets = ((channel * (rows + 2) + row) * width + column).astype(np.uint32)
        found = np.empty((count, rows, columns, len(bias)), np.float32)
        for source, target in zip(maps, found, strict=True):
            framed = tf.pad(tf.transpose(source, (2, 0, 1)), ((0, 0), (1, 1), (1, 1))).numpy()
            sums = self.taps.multiply(self.weights, framed, offsets, bias, rows * width - 2)
            # The last row lacks the positions that are not used.
            strides = (width * sums.itemsize, sums.itemsize, sums.strides[0])
            target[:] = np.lib.stride_tricks.as_strided(sums, target.shape, strides)
        return found
