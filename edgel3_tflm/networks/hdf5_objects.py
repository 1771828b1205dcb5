"""Groups, arrays and attributes of an HDF5 file in memory.

pyfive parses object headers and the links of groups. It trusts its file, so every file has a budget
of reads: damaged structures that refer to each other cannot occupy a program without end. Arrays
and attributes are decoded here, because their sizes must be checked before anything is allocated.
"""

import io
import math
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pyfive.dataobjects import DataObjects
from pyfive.misc_low_level import SuperBlock

from edgel3_tflm.errors import WeightsError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Where the superblock of each version has the base address and the end of the file.
_SUPERBLOCK_ADDRESSES = {0: (24, 40), 2: (12, 28), 3: (12, 28)}
# A published file takes 800 reads and 38 kB.
_MAX_READS = 20_000
_MAX_METADATA_BYTES = 1024 * 1024
_DATASPACE, _DATATYPE, _EXTERNAL_FILES, _LAYOUT, _ATTRIBUTE = 1, 3, 7, 8, 12
_UNDEFINED = 2**64 - 1
_TYPE_CLASSES = (
    *("integers", "floats", "times", "strings", "bit fields", "opaque values", "compounds"),
    *("references", "enumerations", "values of variable length", "arrays"),
)
# Bit offset, precision, exponent's place and size, mantissa's place and size, exponent bias.
_IEEE = {
    2: (0, 16, 10, 5, 0, 10, 15),
    4: (0, 32, 23, 8, 0, 23, 127),
    8: (0, 64, 52, 11, 0, 52, 1023),
}


class _MeteredFile(io.BytesIO):
    """A file that refuses to be read more often than the structures of a weight file need."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads, self._bytes = _MAX_READS, _MAX_METADATA_BYTES

    def read(self, size: int | None = -1) -> bytes:
        self._reads -= 1
        if size is None or self._reads < 0 or not 0 <= size <= self._bytes:
            raise WeightsError(
                "expected the structures of a weight file, found larger ones, or some that refer to"
                " each other without end"
            )
        self._bytes -= size
        return super().read(size)


@dataclass(frozen=True)
class Array:
    """An array or an attribute whose values are not decoded yet.

    Parameters
    ----------
    type_name : str
        The type of the values, for messages.
    dtype : numpy.dtype or None
        None for a type that no weight file has.
    shape : tuple of int or None
        None if the file states that there are no values.
    storage : {'contiguous', 'chunks', 'external', 'none'}
    data : bytes
        Not copied: the file or a part of it.
    offset : int
        Position of the values in ``data``.
    """

    type_name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...] | None
    storage: str
    data: bytes = field(repr=False)
    offset: int

    def read(self) -> npt.NDArray[Any]:
        """Return the values. Check ``dtype``, ``shape`` and ``storage`` before.

        Raises
        ------
        ValueError
            If the values are not in the file.
        """
        shape = self.shape or ()
        count = math.prod(shape)  # of Python integers: claimed sizes may exceed 64 bits together
        if count == 0:
            return np.zeros(shape, self.dtype)
        found: npt.NDArray[Any] = np.frombuffer(self.data, self.dtype, count, self.offset)
        return found.reshape(shape)


class Group:
    """A group of the file.

    Attributes
    ----------
    links : dict
        The address of each member by its name; a text for a soft link.
    """

    def __init__(self, file: "Hdf5File", address: int, objects: DataObjects) -> None:
        self.address = address
        self.links: dict[str, int | str] = objects.get_links()
        self._file = file
        self._objects = objects

    def open(self, name: str) -> "Group | Array":
        """Open a member.

        Raises
        ------
        WeightsError
            If the name is a path or a soft link, which could lead out of the group.
        """
        address = self.links.get(name)
        if "/" in name or not isinstance(address, int):
            raise WeightsError(
                f"{name}: expected a group or an array of the file itself, found none"
            )
        return self._file.open(address)

    def attribute(self, name: str) -> Array | None:
        """Return an attribute; None if the group has none of this name."""
        for message in self._objects.find_msg_type(_ATTRIBUTE):
            data, at = self._objects.msg_data, message["offset_to_message"]
            version, _, name_size, type_size, space_size = struct.unpack_from("<BBHHH", data, at)
            at += {1: 8, 2: 8, 3: 9}[version]

            def padded(size: int, version: int = version) -> int:
                return -(-size // 8) * 8 if version == 1 else size

            if data[at : at + name_size].rstrip(b"\0") == name.encode():
                type_at = at + padded(name_size)
                space_at = type_at + padded(type_size)
                values_at = space_at + padded(space_size)
                shape = _parse_shape(data, space_at)
                return Array(*_parse_type(data, type_at), shape, "contiguous", data, values_at)
        return None


class Hdf5File:
    """An HDF5 file in memory.

    Raises
    ------
    WeightsError
        If it is no HDF5 file, or ends early.
    """

    def __init__(self, data: bytes) -> None:
        version = data[8] if data[:8] == SIGNATURE and len(data) >= 48 else None
        if version not in _SUPERBLOCK_ADDRESSES:
            raise WeightsError("expected an HDF5 file as Keras and h5py write, it is not one")
        base, end = (struct.unpack_from("<Q", data, at)[0] for at in _SUPERBLOCK_ADDRESSES[version])
        if base != 0 or end > len(data):
            raise WeightsError(
                f"expected a whole HDF5 file of {end} bytes, it is cut or damaged: it has"
                f" {len(data)}"
            )
        self._data = data
        self._metered = _MeteredFile(data)
        self._root = SuperBlock(self._metered, 0).offset_to_dataobjects

    @property
    def root(self) -> Group:
        """The root group."""
        return Group(self, self._root, DataObjects(self._metered, self._root))

    def open(self, address: int) -> Group | Array:
        """Open the object at an address."""
        objects = DataObjects(self._metered, address)
        if not objects.find_msg_type(_DATASPACE):
            return Group(self, address, objects)
        space, values, layout = (
            self._message(objects, kind) for kind in (_DATASPACE, _DATATYPE, _LAYOUT)
        )
        shape = _parse_shape(objects.msg_data, space)
        storage, data, offset = self._parse_layout(objects, layout)
        return Array(*_parse_type(objects.msg_data, values), shape, storage, data, offset)

    @staticmethod
    def _message(objects: DataObjects, kind: int) -> int:
        """Return the position of a message, which must be in the object itself."""
        message = objects.find_msg_type(kind)[0]
        if message["flags"] & 2:
            raise WeightsError("expected arrays with types of their own, found a shared type")
        return int(message["offset_to_message"])

    def _parse_layout(self, objects: DataObjects, at: int) -> tuple[str, bytes, int]:
        """Return how an array is stored, the bytes that contain it and its position there."""
        data = objects.msg_data
        version, kind = data[at], data[at + 1]
        if objects.find_msg_type(_EXTERNAL_FILES) or kind == 3:
            return "external", b"", 0
        if version not in (3, 4):
            raise WeightsError(f"expected arrays as h5py writes, found layout version {version}")
        if kind == 0:
            return "contiguous", data, at + 4
        if kind == 1:
            (address,) = struct.unpack_from("<Q", data, at + 2)
            return (
                ("none", b"", 0) if address == _UNDEFINED else ("contiguous", self._data, address)
            )
        return "chunks", b"", 0


def _parse_shape(data: bytes, at: int) -> tuple[int, ...] | None:
    version, dimensions = data[at], data[at + 1]
    if version == 2 and data[at + 3] == 2:
        return None
    if version not in (1, 2) or dimensions > 32:
        raise WeightsError(f"expected a shape, found version {version}, {dimensions} dimensions")
    return struct.unpack_from(f"<{dimensions}Q", data, at + (8 if version == 1 else 4))


def _parse_type(data: bytes, at: int) -> tuple[str, np.dtype[Any] | None]:
    """Return a type's name and, for the types of a weight file, its NumPy type."""
    kind, flags = data[at] & 15, data[at + 1]
    (size,) = struct.unpack_from("<I", data, at + 4)
    order = ">" if flags & 1 else "<"
    if kind == 0:
        name = f"{'int' if flags & 8 else 'uint'}{8 * size}"
        return name, np.dtype(order + "i8") if name == "int64" else None
    if kind == 1 and size in _IEEE and not flags & 0x40:
        layout = struct.unpack_from("<HHBBBBI", data, at + 8)
        if layout == _IEEE[size]:
            return f"float{8 * size}", np.dtype(f"{order}f{size}")
    if kind == 3 and 0 < size < 2**31:
        return f"strings of {size} bytes", np.dtype(f"S{size}")
    return (_TYPE_CLASSES[kind] if kind < len(_TYPE_CLASSES) else f"type {kind}"), None
