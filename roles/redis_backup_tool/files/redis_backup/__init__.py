"""Verified backups of Redis and the proof that they restore."""

from __future__ import annotations

try:
    # The packed program has this module: it names the version of the collection.
    from . import _version  # type: ignore[attr-defined]

    __version__: str = _version.VERSION
except ImportError:
    __version__ = "unpacked"
