"""The names of ``edgel3.core``: embeddings of arrays and files."""

from edgel3_tflm.audio.framing import center_audio as _center_audio
from edgel3_tflm.audio.framing import pad_audio as _pad_audio
from edgel3_tflm.embedding.api import get_embedding, process_file
from edgel3_tflm.embedding.npz import get_output_path

__all__ = ["_center_audio", "_pad_audio", "get_embedding", "get_output_path", "process_file"]
