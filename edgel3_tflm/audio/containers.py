"""Detecting truncated audio files: the length that the header states against the file's length.

libsndfile reads the rest of a truncated file without an error, and corrects the stated length.
"""

import os
import struct
from dataclasses import dataclass
from io import FileIO

from edgel3_tflm.errors import AudioError

_OGG_PAGE_HEADER = struct.Struct("<4sBB8s4s4s4sB")
_OGG_END_OF_STREAM = 4
_OGG_LONGEST_PAGE = 27 + 255 + 255 * 255


@dataclass(frozen=True)
class _Chunks:
    """The chunks of a family of formats, each with an identifier, a size and contents.

    Parameters
    ----------
    first : int
        Position of the first chunk.
    header : struct.Struct
        Identifier and size.
    data : bytes
        Identifier of the chunk that contains the samples.
    size_includes_header : bool
        Whether a chunk's size counts its identifier and size as well.
    alignment : int
        The distance between the first bytes of two chunks is a multiple of this number.
    """

    first: int
    header: struct.Struct
    data: bytes
    size_includes_header: bool = False
    alignment: int = 2


_WAV = _Chunks(12, struct.Struct("<4sI"), b"data")
_BY_FIRST_BYTES = {
    b"RIFF": _WAV,
    b"RF64": _WAV,
    b"BW64": _WAV,
    b"RIFX": _Chunks(12, struct.Struct(">4sI"), b"data"),
    b"FORM": _Chunks(12, struct.Struct(">4sI"), b"SSND"),
    b"caff": _Chunks(8, struct.Struct(">4sq"), b"data", alignment=1),
    b"riff": _Chunks(
        40,
        struct.Struct("<16sQ"),
        bytes.fromhex("64617461f3acd3118cd100c04f8edb8a"),
        size_includes_header=True,
        alignment=8,
    ),
}


def refuse_truncated(file: FileIO) -> None:
    """Refuse a file that is shorter than its header states.

    WAV, RF64, W64, AIFF, CAF and AU state the size of their samples. MP3 with a Xing header states
    the size of the stream. An Ogg stream marks its last page. A file that does not state a length,
    such as a file written into a pipe, is accepted.

    Parameters
    ----------
    file : io.FileIO
        Unbuffered. The function changes its position. It does not read a pipe.

    Raises
    ------
    AudioError
        If the file is shorter, or its last Ogg page is missing.
    """
    if not file.seekable():
        return
    length = file.seek(0, os.SEEK_END)
    first = _read_at(file, 0, 4)
    end: int | None = None
    if first == b"OggS":
        _refuse_truncated_ogg(file, length)
    elif first in _BY_FIRST_BYTES:
        end = _find_chunks_end(file, _BY_FIRST_BYTES[first])
    elif first in (b".snd", b"dns."):
        end = _find_au_end(file, ">II" if first == b".snd" else "<II")
    else:
        end = _find_mp3_end(file)
    if end is not None and end > length:
        raise AudioError(
            f"truncated: its header states {end:,} bytes, the file has {length:,}; get the whole"
            " file again"
        )


def _read_at(file: FileIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _is_unknown(size: int) -> bool:
    """Return whether a size is a placeholder of a program that does not know the size yet.

    Placeholders are 0, -1, the largest number of 31 or 32 bits, 2**31 (arecord), and slightly
    smaller numbers, rounded to whole blocks (sox).
    """
    return size <= 0 or size % (1 << 31) == 0 or size % (1 << 31) >= (1 << 31) - 4096


def _find_chunks_end(file: FileIO, chunks: _Chunks) -> int | None:
    position, large_size = chunks.first, 0
    while len(header := _read_at(file, position, chunks.header.size)) == chunks.header.size:
        name, size = chunks.header.unpack(header)
        contents = position + chunks.header.size
        if name == b"ds64":  # RF64: sizes of 64 bits; the second is the size of the samples
            large_size = int.from_bytes(_read_at(file, contents + 8, 8), "little")
        if name == chunks.data:
            if size == 0xFFFFFFFF and large_size:
                size = large_size
            start = position if chunks.size_includes_header else contents
            return None if _is_unknown(size) else start + size
        if size < 0:
            return None
        step = size if chunks.size_includes_header else chunks.header.size + size
        position += max(chunks.header.size, -(-step // chunks.alignment) * chunks.alignment)
    return None


def _find_au_end(file: FileIO, layout: str) -> int | None:
    header = _read_at(file, 4, 8)
    if len(header) < 8:
        return None
    start, size = struct.unpack(layout, header)
    return None if _is_unknown(size) else start + size


def _find_mp3_end(file: FileIO) -> int | None:
    start = 0
    tag = _read_at(file, 0, 10)
    if tag[:3] == b"ID3" and len(tag) == 10:
        start = 10 + sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
    frame = _read_at(file, start, 64)
    if frame[:1] != b"\xff":
        return None
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0:
        return None
    flags = int.from_bytes(frame[at + 4 : at + 8], "big")
    if not flags & 2:
        return None
    field = at + 8 + (4 if flags & 1 else 0)
    size = int.from_bytes(frame[field : field + 4], "big")
    return None if _is_unknown(size) else start + size


def _refuse_truncated_ogg(file: FileIO, length: int) -> None:
    start = max(0, length - 2 * _OGG_LONGEST_PAGE)
    tail = _read_at(file, start, length - start)
    page = tail[tail.rfind(b"OggS") :]
    if not page.startswith(b"OggS"):
        return
    if len(page) >= _OGG_PAGE_HEADER.size:
        *fields, segments = _OGG_PAGE_HEADER.unpack_from(page)
        table = page[_OGG_PAGE_HEADER.size : _OGG_PAGE_HEADER.size + segments]
        whole = _OGG_PAGE_HEADER.size + segments + sum(table)
        is_whole = len(table) == segments and whole <= len(page)
        if is_whole and fields[2] & _OGG_END_OF_STREAM:
            return
    raise AudioError(
        "truncated: the last page of its Ogg stream is missing or cut; get the whole file again"
    )
