"""INFO as data."""

from __future__ import annotations

import pytest
from ansible_collections.proven.redis.plugins.module_utils.redis_info import InfoError, parse_info

from tests.unit.redis_on_socket import running, short_directory

TEXT = (
    "# Server\r\nredis_version:7.0.15\r\nredis_git_sha1:00000000\r\nrun_id:1234567890\r\n"
    "tcp_port:6379\r\nconfig_file:/etc/redis/a=b:c.conf\r\n\r\n"
    "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n"
    "slave0:ip=192.0.2.12,port=6379,state=online,offset=812,lag=0\r\n"
    "slave1:ip=2001:db8::3,port=6379,state=wait_bgsave,offset=0,lag=1\r\n"
    "master_replid:1111111111111111111111111111111111111111\r\nmaster_repl_offset:812\r\n"
    "second_repl_offset:-1\r\n\r\n"
    "# Memory\r\nused_memory_human:1.50M\r\nmem_fragmentation_ratio:1.25\r\n\r\n"
    "# Errorstats\r\nerrorstat_A:B:count=3\r\n\r\n"
    "# Commandstats\r\ncmdstat_config|get:calls=1,usec=9,usec_per_call=9.00\r\n\r\n"
    "# Modules\r\nmodule:name=a,ver=1\r\nmodule:name=b,ver=2\r\n\r\n"
    "# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=3599711\r\ndb15:keys=1,expires=0,avg_ttl=0\r\n"
)


def test_parse_info() -> None:
    assert parse_info(TEXT) == {
        "server": {
            "redis_version": "7.0.15",
            "redis_git_sha1": "00000000",
            "run_id": "1234567890",
            "tcp_port": 6379,
            "config_file": "/etc/redis/a=b:c.conf",
        },
        "replication": {
            "role": "master",
            "connected_slaves": 2,
            "replicas": [
                {"ip": "192.0.2.12", "port": 6379, "state": "online", "offset": 812, "lag": 0},
                {
                    "ip": "2001:db8::3",
                    "port": 6379,
                    "state": "wait_bgsave",
                    "offset": 0,
                    "lag": 1,
                },
            ],
            "master_replid": "1111111111111111111111111111111111111111",
            "master_repl_offset": 812,
            "second_repl_offset": -1,
        },
        "memory": {"used_memory_human": "1.50M", "mem_fragmentation_ratio": 1.25},
        "errorstats": {"errorstat_A:B": {"count": 3}},
        "commandstats": {"cmdstat_config|get": {"calls": 1, "usec": 9, "usec_per_call": 9.0}},
        "modules": {"modules": [{"name": "a", "ver": 1}, {"name": "b", "ver": 2}]},
        "keyspace": {
            "0": {"keys": 3, "expires": 1, "avg_ttl": 3599711},
            "15": {"keys": 1, "expires": 0, "avg_ttl": 0},
        },
    }


def test_an_empty_keyspace_is_a_section_all_the_same() -> None:
    assert parse_info("# Keyspace\r\n") == {"keyspace": {}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("\r\n \n", "empty"),
        ("NOAUTH Authentication required.", "line 1 is not from INFO"),
        ("ERR: no", "line 1 is not from INFO"),
        ("# Server\r\nrole", "line 2 is not from INFO"),
        (None, "not NoneType"),
        (b"# Server", "not bytes"),
    ],
)
def test_what_is_no_info_is_refused(text: str, message: str) -> None:
    with pytest.raises(InfoError, match=message):
        parse_info(text)


def test_a_real_servers_info() -> None:
    with short_directory() as directory:
        text = f'port 0\nunixsocket {directory}/socket\nsave ""\ndir {directory}\n'
        with running(directory, text) as server:
            server.connection.command("SET", "key", "value", "EX", "100")
            server.connection.command("SELECT", "3")
            server.connection.command("SET", "key", "value")
            info = parse_info(server.connection.command("INFO", "everything"))
    assert info["replication"]["role"] == "master"
    assert info["replication"]["connected_slaves"] == 0
    assert info["persistence"]["loading"] == 0
    assert info["commandstats"]["cmdstat_set"]["calls"] == 2
    assert {name: (db["keys"], db["expires"]) for name, db in info["keyspace"].items()} == {
        "0": (1, 1),
        "3": (1, 0),
    }
