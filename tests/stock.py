"""pcodec as its library codes numbers, to hold ours against."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec, wrapped


def unpack(coded: bytes, like: NDArray[Any]) -> NDArray[Any]:
    """As many numbers as `like` has; all bytes must be used. No bytes are zeros."""
    out = np.zeros_like(like)
    if not coded:
        return out
    decoder, _ = wrapped.FileDecompressor.new(b"\x04\x01")
    chunk, used = decoder.chunk_decompressor(coded, f"u{8 * like.itemsize}")
    progress, page = chunk.read_page_into(coded[used:], like.size, out)
    assert (progress.n_processed, used + page) == (like.size, len(coded))
    return out


def pack(numbers: NDArray[Any]) -> bytes:
    """Metadata and page of one chunk, at level 10."""
    config = ChunkConfig(
        compression_level=10,
        mode_spec=ModeSpec.classic(),
        delta_spec=DeltaSpec.no_op(),
        paging_spec=PagingSpec.exact_page_sizes([numbers.size]),
    )
    file = wrapped.FileCompressor()
    assert file.write_header() == b"\x04\x01"
    chunk = file.chunk_compressor(numbers, config)
    return bytes(chunk.write_meta()) + bytes(chunk.write_page(0))
