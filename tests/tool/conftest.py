"""What several tests of the tool start from."""

from __future__ import annotations

import pytest

from tests.tool.backup_lab import fill, lab


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A dump of a real server, made now."""
    with lab(tmp_path_factory.mktemp("source"), "redis-1", rsync=False) as made:
        server = made.redis("redis-1")
        client = server.client()
        fill(client)
        client.save()
        return (server.data / "dump.rdb").read_bytes()
