"""What every test may import: the collection proven.redis, as Ansible itself finds it."""

from __future__ import annotations

from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

init_plugin_loader([str(Path(__file__).resolve().parent / "collections")])
