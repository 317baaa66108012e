"""Verified backups of Redis and the proof that they restore."""

from __future__ import annotations

__version__ = "0.1.0"
