"""The digests of a received object: SHA-256 over its transfer syntax and its bytes, none of them hashed twice.

The pixels have a digest of their own, by which a newer header of the same image is known. In that of the whole
it stands in their place: hashing is the largest part of what indexing an image costs.
"""

from __future__ import annotations

import hashlib
from typing import Any, BinaryIO

_BLOCK = 1 << 20
Content = BinaryIO | memoryview
"""An open file, or all of it in memory."""


def pixel_digest(content: Content, at: int, syntax: str) -> str:
    """Of what begins at *at*, the pixel data (or waveform, or document) element, and goes to the end."""
    return _hashed(content, at, None, syntax).hexdigest()


def whole_digest(content: Content, offset: int, syntax: str, pixels_at: int, pixels: str) -> str:
    """Of a dataset that begins at *offset*, with the digest of its *pixels*, which begin *pixels_at* bytes later.

    0 stands for none; then it is the digest of all its bytes.
    """
    if not pixels_at:
        return _hashed(content, offset, None, syntax).hexdigest()
    digest = _hashed(content, offset, pixels_at, syntax)
    digest.update(pixels.encode("ascii"))
    return digest.hexdigest()


def digest_again(content: Content, offset: int, syntax: str, pixels_at: int) -> str:
    """The digest of a dataset as it was taken, and without parsing it."""
    pixels = pixel_digest(content, offset + pixels_at, syntax) if pixels_at else ""
    return whole_digest(content, offset, syntax, pixels_at, pixels)


def _hashed(content: Content, at: int, length: int | None, syntax: str) -> Any:
    """A SHA-256 of the transfer syntax and *length* bytes from *at* on; None: all that follow."""
    digest = hashlib.sha256(syntax.encode("latin-1", "replace"))
    if isinstance(content, memoryview):
        digest.update(content[at:] if length is None else content[at : at + length])
        return digest
    content.seek(at)
    while block := content.read(_BLOCK if length is None else min(_BLOCK, length)):
        digest.update(block)
        if length is not None:
            length -= len(block)
    return digest
