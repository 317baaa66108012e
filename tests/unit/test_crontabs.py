"""The lines of crontabs that a hand-made backup left behind, and those that are somebody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.modules import redis_crontabs

from tests.support.ansible_runs import answer

SCRIPT = """\
#!/bin/bash
# redis-cli save was here
DAY=$(date +%d)
/usr/local/redis/bin/redis-cli -p 6379 save
cp /mnt/redis_data/dump.rdb /backup/
"""


def found(root: Path, **arguments: Any) -> list[str]:
    """What the module names on a host whose files are below this directory."""
    given = {"root": str(root), "data": ["/mnt/redis_data"], **arguments}
    answered = answer(redis_crontabs, given, check=True)
    assert answered["changed"] is False
    return list(answered["lines"])


def put(root: Path, path: str, text: str) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        (
            "/var/spool/cron/crontabs/root",
            "MAILTO=x\n5 0 * * * /opt/sh/redis_bkup.sh >/dev/null\n",
            "line 2 runs /opt/sh/redis_bkup.sh, which runs redis-cli save (line 4)",
        ),
        (
            "/etc/crontab",
            "5 0 * * * root bash /opt/sh/redis_bkup.sh\n",
            "line 1 runs /opt/sh/redis_bkup.sh, which runs redis-cli save (line 4)",
        ),
        (
            "/etc/cron.d/redis",
            "@daily redis redis-cli -a x BGSAVE && true\n",
            "line 1 runs redis-cli bgsave",
        ),
        (
            "/var/spool/cron/crontabs/redis",
            "0 1 * * * valkey-cli --no-auth-warning 'save'\n",
            "line 1 runs redis-cli save",
        ),
        (
            "/var/spool/cron/crontabs/app",
            "0 1 * * * tar czf /b.tgz /mnt/redis_data/\n",
            "line 1 names /mnt/redis_data",
        ),
        ("/etc/cron.daily/backup", SCRIPT, "line 4 runs redis-cli save"),
    ],
)
def test_a_hand_made_backup_is_named(tmp_path: Path, path: str, text: str, line: str) -> None:
    put(tmp_path, "/opt/sh/redis_bkup.sh", SCRIPT)
    put(tmp_path, path, text)
    assert found(tmp_path) == [f"{path} {line}"]


@pytest.mark.parametrize(
    "text",
    [
        "# 5 0 * * * /opt/sh/redis_bkup.sh\n",
        "5 0 * * * /opt/sh/other.sh\n",
        "5 0 * * * /opt/sh/missing.sh\n",
        "5 0 * * * redis-cli ping; save-the-whales\n",
        "5 0 * * * redis-cli --latency | tee save\n",
        "5 0 * * * ls /mnt/redis_data2 /mnt/redis_database\n",
        'PATH="/mnt/redis_data"\n',
        "5 0 * * *\n",
        "\x00\x01",
    ],
)
def test_anything_else_is_not(tmp_path: Path, text: str) -> None:
    put(tmp_path, "/opt/sh/redis_bkup.sh", SCRIPT)
    put(tmp_path, "/opt/sh/other.sh", "#!/bin/sh\nuptime\n")
    put(tmp_path, "/var/spool/cron/crontabs/root", text)
    assert found(tmp_path) == []


def test_ours_is_ours_and_a_host_without_cron_has_none(tmp_path: Path) -> None:
    assert found(tmp_path) == []
    ours = "/etc/cron.d/redis-backup-redis"
    put(tmp_path, ours, "5 0 * * * redis ls /mnt/redis_data\n")
    assert found(tmp_path, ours=[ours]) == []
    assert found(tmp_path) == [f"{ours} line 1 names /mnt/redis_data"]
