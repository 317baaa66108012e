"""Whom a change of users shuts out: foretold by the module, with real servers and clients."""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.module_utils.acl_consequences import shut_out
from ansible_collections.proven.redis.plugins.module_utils.conf_accept import about
from ansible_collections.proven.redis.plugins.module_utils.redis_acl import (
    for_version,
    read,
    render,
    setuser,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import (
    Connection,
    ServerError,
    logins,
)
from ansible_collections.proven.redis.plugins.modules import redis_acl

from tests.support.ansible_runs import answer
from tests.support.servers import SUITES, Binary, of_suite
from tests.tool.backup_lab import free_port
from tests.unit.redis_on_socket import Server, running, short_directory

ADMIN = "of-twelve-or-more"
SHOP = {"name": "shop", "preset": "application", "password": "of-the-shop-alone"}


@pytest.fixture(params=sorted(SUITES))
def binary(request: pytest.FixtureRequest) -> Binary:
    return of_suite(request.param)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def server(binary: Binary, port: int) -> Iterator[Server]:
    """With the user shop, a key, and two clients that are connected as it, one as default."""
    with short_directory() as place:
        text = f'port {port}\nunixsocket {place}/socket\ndir {place}\nsave ""\n'
        text += f"requirepass {ADMIN}\n"
        with running(place, text, ADMIN, binary) as started, ExitStack() as stack:
            users = for_version(render([SHOP], "default", [ADMIN]), binary.version)
            started.connection.command("ACL", "SETUSER", *setuser(users, "shop"))
            started.connection.command("SET", "key", "value")
            for _ in range(2):
                client = stack.enter_context(Connection("127.0.0.1", port))
                client.log_in(logins("shop", SHOP["password"]))
            yield started


@pytest.fixture
def run(binary: Binary, port: int, tmp_path: Path, server: Server) -> Any:
    program = tmp_path / "redis-server"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(binary.command)} "$@"\n', encoding="utf-8")
    program.chmod(0o755)

    def answered(users: list[dict[str, Any]], admin: str, check: bool, *accept: str) -> Any:
        return answer(
            redis_acl,
            {
                "instance": {
                    "unit": f"none-{port}.service",
                    "unit_dropin": str(tmp_path / "none"),
                    "server": str(program),
                    "account": pwd.getpwuid(os.getuid()).pw_name,
                    "config_file": str(server.config),
                    "log_file": str(tmp_path / "log"),
                    "addresses": ["127.0.0.1"],
                    "port": port,
                    "username": admin,
                    "password": ADMIN,
                },
                "content": render(users, admin, [ADMIN]),
                "file": str(tmp_path / "users.acl"),
                "running": True,
                "host": "redis-1",
                "accept": list(accept),
            },
            check,
        )

    return answered


def test_a_user_with_clients_is_not_deleted_without_consent(run: Any, server: Server) -> None:
    for check in (True, False):
        refused = run([], "default", check)
        assert "redis-1 is left as it is: 2 clients are connected as users" in refused["msg"]
        assert "shop (2)" in refused["msg"]
        assert refused["msg"].endswith("redis_accept: [redis-1:acl:2-clients]")
        assert [one["number"] for one in refused["consequences"]] == [2]
        assert "plan" not in refused
    assert "it is more now" in run([], "default", True, "redis-1:acl:1-clients")["msg"]
    assert "shop" in read(server.connection.command("ACL", "LIST"))
    done = run([], "default", False, "redis-1:acl:2-clients", "redis-1:maxmemory:3-keys")
    assert done["changed"]
    assert any(line.endswith("(accepted)") for line in done["plan"])
    assert "user=shop" not in server.connection.command("CLIENT", "LIST")


def test_nor_is_the_default_user_turned_off(run: Any, server: Server, port: int) -> None:
    """The connection of the test itself is a client as default; that of the module is not."""
    refused = run([SHOP], "operator", True)
    assert "1 clients are connected" in refused["msg"]
    assert "default (1)" in refused["msg"]
    assert run([SHOP], "operator", False, "redis-1:acl:1-clients")["changed"]
    with Connection("127.0.0.1", port) as client, pytest.raises(ServerError):
        client.log_in(logins("default", ADMIN))


def test_a_change_that_shuts_out_nobody_needs_no_consent(run: Any, server: Server) -> None:
    more = {**SHOP, "name": "till"}
    assert run([SHOP, more], "default", False)["changed"]
    assert run([SHOP], "default", False)["changed"]  # nobody is connected as till
    server.connection.command("FLUSHALL")
    assert run([], "default", False)["changed"]


def test_links_between_servers_do_not_count() -> None:
    lines = [
        "id=1 addr=192.0.2.1:1 flags=S user=copy cmd=replconf",
        "id=2 addr=192.0.2.1:2 flags=M user=copy cmd=ping",
        "id=3 addr=192.0.2.1:3 flags=N user=copy cmd=acl",
        "id=4 addr=192.0.2.1:4 name=user=copy flags=N user=default cmd=get",
    ]
    current = read(["user copy on nopass +@all", "user default on nopass", "user old off"])
    desired = {"default": current["default"]}
    assert shut_out(desired, current, lines, "3") == []
    (one,) = shut_out(desired, current, lines, "9")
    assert (one.subject, one.number) == ("acl", 1)


def test_an_entry_is_judged_where_its_subject_is_looked_at() -> None:
    accept = ["redis-1:acl:2-clients", "redis-1:maxmemory:3-keys", "nonsense"]
    assert about(accept, users=True) == accept[:1]
    assert about(accept, users=False) == accept[1:]
