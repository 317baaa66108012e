"""Clients that stay at work on a host of a lab while playbooks change its Redis servers."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.live import wait_for

# Redis-py, as an application might: it is on each host, and its errors are what is counted.
_CONNECT = """
import json, os, sys, time, redis
with open("/etc/redis-backup/redis.json") as file:
    server = json.load(file)["redis"]
def connect():
    return redis.Redis(port=server["port"], password=server["password"], decode_responses=True)
"""
# One key after the other; a number is written down only when the server has said OK.
_WRITER = (
    _CONNECT
    + """
client, number = connect(), 0
with open("/run/acknowledged", "w") as acknowledged:
    while True:
        number += 1
        try:
            if client.set(f"written:{number}", number):
                print(number, file=acknowledged, flush=True)
        except redis.RedisError:
            time.sleep(0.02)
        time.sleep(0.005)
"""
)
# The id of a connection changes when a client had to connect again.
_HELD = (
    _CONNECT
    + """
client = connect().client()
first, asked, failed = client.client_id(), 0, 0
while True:
    try:
        asked += client.client_id() == first
    except redis.RedisError:
        failed += 1
    with open("/run/held.new", "w") as file:
        json.dump({"id": first, "same": client.client_id() == first, "asked": asked,
                   "failed": failed}, file)
    os.replace("/run/held.new", "/run/held")
    time.sleep(0.05)
"""
)
_MISSING = (
    _CONNECT
    + """
last, skipped = json.load(open(0))
numbers = sorted(set(range(1, last + 1)) - set(skipped))
pipeline = connect().pipeline(transaction=False)
for number in numbers:
    pipeline.get(f"written:{number}")
found = pipeline.execute()
print(json.dumps([n for n, value in zip(numbers, found) if value != str(n)]))
"""
)


def _put(host: Any, path: str, text: str) -> None:
    encoded = base64.b64encode(text.encode()).decode()
    host.check_output(f"echo {encoded} | base64 --decode > {shlex.quote(path)}")


@contextmanager
def _at_work(host: Any, name: str, program: str) -> Iterator[None]:
    _put(host, f"/run/{name}.py", program)
    host.check_output(
        f"systemd-run --quiet --collect --unit={name} /usr/bin/python3 /run/{name}.py"
    )
    try:
        yield
        host.run_expect([0], f"systemctl is-active --quiet {name}")
    finally:
        host.run(f"systemctl stop {name}")


@contextmanager
def writer(host: Any) -> Iterator[None]:
    """A client that writes one key after the other to the server of this host, all the time: it is
    at work before the block begins, and again after it has ended."""
    with _at_work(host, "writer", _WRITER):
        wait_for(lambda: len(acknowledged(host)) > 100)
        yield
        written = len(acknowledged(host))
        wait_for(lambda: len(acknowledged(host)) > written)


def acknowledged(host: Any) -> list[int]:
    """The numbers that the server has said OK to; the keys are called ``written:<number>``."""
    return [int(line) for line in host.run("cat /run/acknowledged").stdout.split()]


def missing(host: Any, numbers: list[int]) -> list[int]:
    """Those numbers whose key is not, or not rightly, on the server of this host."""
    # The numbers that are left out are few, and a command line cannot be long.
    skipped = sorted(set(range(1, max(numbers))) - set(numbers))
    _put(host, "/run/numbers", json.dumps([max(numbers), skipped]))
    _put(host, "/run/missing.py", _MISSING)
    found: list[int] = json.loads(
        host.check_output("/usr/bin/python3 /run/missing.py < /run/numbers")
    )
    return found


@contextmanager
def held_connection(host: Any) -> Iterator[None]:
    """A client that asks for its own id over one connection, all the time."""
    with _at_work(host, "held", _HELD):
        yield


def held(host: Any) -> dict[str, Any]:
    """What that client has seen: its ``id``, whether it is the ``same`` still, how often it
    ``asked`` and how often that ``failed``."""
    found: dict[str, Any] = json.loads(host.check_output("cat /run/held"))
    return found
