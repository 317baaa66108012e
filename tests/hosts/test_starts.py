"""A master whose files were moved, replaced, edited or damaged: the newest data are served, or the
run stops before the start. Ten of the combinations of tests/campaigns/test_starts.py, as people
make them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.live import Play
from tests.support.runbooks import is_seen

DEPLOY = "playbooks/deploy_redis.yml"
RESTART = "playbooks/rolling_restart.yml"
DATA = "/mnt/redis_data"
AOF = f"{DATA}/appendonlydir"
CONF = "/etc/redis/redis.conf"
# Its exit status tells of errors with -e alone.
CLI = "REDISCLI_AUTH=of-this-lab-alone redis-cli -e"
STOP = "systemctl stop redis-server"
# What an operator does with a file, as the server's user leaves it.
BACKUP = f"cp -a {DATA}/dump.rdb /root/good.rdb"


def fill(name: str, count: int) -> str:
    script = f"for i = 1, {count} do redis.call('SET', '{name}:' .. i, 'x') end"
    return f'{CLI} EVAL "{script}" 0'


def cli(*commands: str) -> str:
    return " && ".join(f"{CLI} {command}" for command in commands)


REWRITTEN = f"until {CLI} INFO persistence | grep -q aof_rewrite_in_progress:0; do sleep 0.1; done"
SERVED: list[tuple[str, list[str], int]] = [
    (
        "an RDB placed by hand, the append-only file moved away",
        [fill("a", 100), cli("SAVE"), BACKUP, fill("b", 50), STOP,
         f"mv {AOF} /root/moved && cp -a /root/good.rdb {DATA}/dump.rdb"],
        100,
    ),
    (
        "the same, and the file says appendonly no",
        [fill("a", 100), STOP, f"rm -r {AOF} && sed -i 's/^appendonly.*/appendonly no/' {CONF}"],
        100,
    ),
    (
        "an append-only file alone, and the file says appendonly no",
        [fill("a", 100), STOP,
         f"rm {DATA}/dump.rdb && sed -i 's/^appendonly.*/appendonly no/' {CONF}"],
        100,
    ),
    ("an orderly end, which saves last", [fill("a", 100), "sleep 1.2", STOP], 100),
    (
        "an append-only file that a server stopped writing",
        [fill("a", 100), "sleep 1.2", cli("CONFIG SET appendonly no"), fill("b", 50), STOP],
        150,
    ),
    (
        "writes since the last save",
        [fill("a", 100), cli("SAVE"), fill("b", 50), cli("CONFIG SET save ''"), STOP],
        150,
    ),
    ("no configuration file", [fill("a", 100), STOP, f"rm {CONF}"], 100),
]  # fmt: skip


@pytest.fixture
def host(hosts: dict[str, Any], play: Callable[..., Play]) -> Any:
    """The master, without keys and with files that are in order."""
    found = hosts["redis-1"]
    found.run(f"{STOP}; rm -rf {DATA}/* /root/moved")
    ready = play(DEPLOY)
    assert ready.code == 0, ready.output[-3000:]
    return found


def keys(host: Any) -> int:
    return int(host.check_output(f"{CLI} DBSIZE"))


@pytest.mark.parametrize(
    ("steps", "expected"), [row[1:] for row in SERVED], ids=[r[0] for r in SERVED]
)
def test_the_newest_data_are_served(
    host: Any, play: Callable[..., Play], steps: list[str], expected: int
) -> None:
    for step in steps:
        host.check_output(step)
    started = play(DEPLOY)
    assert started.code == 0, started.output[-3000:]
    assert keys(host) == expected
    assert host.check_output(f"{CLI} CONFIG GET appendonly").split()[1] == "yes"
    # What it serves is in the append-only file that the inventory promises.
    host.check_output("systemctl kill --signal KILL redis-server")
    host.check_output(f"until {CLI} PING | grep -q PONG; do sleep 0.2; done")
    assert keys(host) == expected


STOPPED: list[tuple[str, str, list[str]]] = [
    (
        "an append-only file without keys beside an RDB with keys",
        "data-at-a-start#empty-beside-full",
        [fill("a", 100), cli("SAVE"), BACKUP, cli("FLUSHALL", "BGREWRITEAOF"), REWRITTEN,
         "sleep 1.2", STOP, f"cp -a /root/good.rdb {DATA}/dump.rdb"],
    ),
    (
        "a damaged RDB",
        "data-at-a-start#damaged",
        [fill("a", 100), STOP, f"rm -r {AOF} && truncate -s -9 {DATA}/dump.rdb"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "steps"), [row[1:] for row in STOPPED], ids=[row[0] for row in STOPPED]
)
def test_what_no_rule_can_tell_stops_before_the_start(
    host: Any, play: Callable[..., Play], message: str, steps: list[str]
) -> None:
    for step in steps:
        host.check_output(step)
    before = host.check_output(f"find {DATA} -type f -exec sha256sum {{}} +")
    stopped = play(DEPLOY)
    assert stopped.code != 0
    assert is_seen(message, stopped.output), stopped.output[-3000:]
    assert not host.service("redis-server").is_running
    assert host.check_output(f"find {DATA} -type f -exec sha256sum {{}} +") == before


def test_a_restart_writes_an_append_only_file_that_is_gone_anew(
    host: Any, play: Callable[..., Play]
) -> None:
    host.check_output(fill("a", 1000))
    host.check_output(f"rm -rf {AOF}")
    done = play(RESTART)
    assert done.code == 0, done.output[-3000:]
    assert keys(host) == 1000


def test_a_restart_is_refused_over_another_append_only_file(
    host: Any, play: Callable[..., Play]
) -> None:
    host.check_output(f"cp -a {AOF} /root/moved")
    host.check_output(fill("a", 1000))
    host.check_output(f"rm -rf {AOF} && mv /root/moved {AOF}")
    refused = play(RESTART)
    assert refused.code != 0
    assert is_seen("data-at-a-start#restart-refused", refused.output), refused.output[-3000:]
    assert keys(host) == 1000
