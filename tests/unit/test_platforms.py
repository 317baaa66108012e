"""The role's redis.conf on the server of every platform that it deploys, by the real servers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.proven.redis.plugins.module_utils.conf_meaning import settings
from ansible_collections.proven.redis.plugins.module_utils.conf_plan import compare

from tests.support import servers
from tests.unit.redis_on_socket import RefusedError, running, short_directory
from tests.unit.role_templates import ROOT, Role

ENGINES = yaml.safe_load((ROOT / "roles/redis/vars/main.yml").read_text("utf-8"))["__redis_engines"]
PLATFORMS = [
    (engine, system, version)
    for engine, names in ENGINES.items()
    for system, version in names["versions"].items()
]
SERVERS: dict[str, Callable[[str], servers.Binary]] = {
    "redis": servers.of_release,
    "valkey": lambda _: servers.valkey(),
}
ODD_PASSWORD = "a \"password\" that 'needs' # quotes"
# What a server that a test starts must not have as it is in the file.
OWN = "bind 127.0.0.1\nport 0\nlogfile \"\"\npidfile ''\nsupervised no\n"


@pytest.fixture(scope="module")
def role(tmp_path_factory: pytest.TempPathFactory) -> Role:
    return Role("redis", tmp_path_factory.mktemp("inventory"))


def rendered(role: Role, engine: str, system: str, **extra: Any) -> str:
    return role.render(
        "redis.conf.j2",
        "redis-1",
        redis_engine=engine,
        __redis_plan={"role": "master", "replicaof": None, "does": "keep"},
        __redis_state={"host": {"platform": system}},
        **extra,
    )


@pytest.mark.parametrize("password", ["a-password", ODD_PASSWORD])
@pytest.mark.parametrize(("engine", "system", "version"), PLATFORMS)
def test_the_file_is_one_that_the_server_of_that_release_takes(
    role: Role, engine: str, system: str, version: str, password: str
) -> None:
    """And its own CONFIG REWRITE of it is no change, unless the server would not start again."""
    binary = SERVERS[engine](version)
    assert binary.release == version, "the map says what Debian has"
    with short_directory() as directory:
        text = rendered(role, engine, system, redis_dir=str(directory), redis_requirepass=password)
        # Redis 6.0 opens every log file that it reads of, also one that a later line replaces.
        text = re.sub("(?m)^logfile .*$", 'logfile ""', text)
        text += f"{OWN}unixsocket {directory}/socket\n"
        with running(directory, text, password, binary) as server:
            effective = server.config_get()
            rewritten = server.rewritten()
        changes = {change.name: change.desired for change in compare(text, rewritten, effective)}
        if changes:
            assert (version, password) in (("6.0", ODD_PASSWORD), ("8.1", ODD_PASSWORD))
            mangled = {"requirepass"} if engine == "redis" else {"requirepass", "masterauth"}
            assert changes == dict.fromkeys(mangled, ODD_PASSWORD)
            with pytest.raises(RefusedError), running(directory, rewritten, password, binary):
                pass
    known = set(settings(text)) - {"bind", "unixsocket"}
    assert known <= {*effective, "user default"}


@pytest.mark.parametrize(("engine", "system", "version"), PLATFORMS)
def test_addresses_that_a_host_need_not_have_stop_no_server(
    role: Role, engine: str, system: str, version: str
) -> None:
    text = rendered(role, engine, system)
    addresses = settings(text)["bind"].split()
    assert addresses == ["127.0.0.1", "::1" if version == "6.0" else "-::1", "192.168.1.2"]


def test_what_a_release_does_not_know_is_left_out(role: Role) -> None:
    old, new = (settings(rendered(role, "redis", system)) for system in ("Debian 11", "Debian 13"))
    assert set(new) - set(old) == {"aof-timestamp-enabled", "lazyfree-lazy-user-flush"}
    assert set(old) <= set(new)


@pytest.mark.parametrize(
    ("engine", "port", "names"),
    [
        ("redis", 6379, ("redis-server.service", "/etc/redis/redis.conf", "redis-server.log")),
        (
            "redis",
            6380,
            ("redis-server@6380.service", "/etc/redis/redis-6380.conf", "redis-server-6380.log"),
        ),
        ("valkey", 6379, ("valkey-server.service", "/etc/valkey/valkey.conf", "valkey-server.log")),
        (
            "valkey",
            7000,
            (
                "valkey-server@7000.service",
                "/etc/valkey/valkey-7000.conf",
                "valkey-server-7000.log",
            ),
        ),
    ],
)
def test_names_follow_from_engine_and_port(
    role: Role, engine: str, port: int, names: tuple[str, str, str]
) -> None:
    given: dict[str, Any] = {"redis_engine": engine, "redis_port": port}
    unit, config, log = names
    assert role.value("__redis_unit", "redis-1", **given) == unit
    assert role.value("__redis_config_file", "redis-1", **given) == config
    assert role.value("__redis_mark", "redis-1", **given) == f"{config}.managed"
    assert role.value("__redis_log_file", "redis-1", **given) == f"/var/log/{engine}/{log}"
    folder = f"/var/lib/{engine}" if port == 6379 else f"/var/lib/{engine}/{port}"
    assert role.value("redis_dir", "redis-1", **given) == folder
    assert role.value("__redis_engine.user", "redis-1", **given) == engine


@pytest.mark.parametrize(
    ("engine", "release", "words"),
    [
        *((engine, version, "") for engine, _, version in PLATFORMS),
        ("valkey", "9.1", ""),
        ("valkey", "9.2", "Valkey 9.2 writes RDB files of a version that this redis-backup does"),
        ("redis", "8.10", "Redis 8.10 writes RDB files of a version"),
    ],
)
def test_a_server_that_could_not_be_backed_up_is_refused(
    role: Role, engine: str, release: str, words: str
) -> None:
    given: dict[str, Any] = {
        "redis_engine": engine,
        "__redis_state": {"host": {"platform": "Debian 13", "version": release}},
    }
    refusal = role.value("__redis_backup_refusal", "redis-1", **given)
    if not words:
        assert refusal == ""
        return
    assert words in refusal
    assert "leave the group backup_server of the inventory empty" in refusal
    assert role.value("__redis_backup_refusal", "redis-1", **given, groups={}) == ""


def test_a_server_that_comes_with_the_system_can_be_backed_up(role: Role) -> None:
    for engine, system, _ in PLATFORMS:
        state = {"host": {"platform": system, "version": None}}
        given: dict[str, Any] = {"redis_engine": engine, "__redis_state": state}
        assert role.value("__redis_backup_refusal", "redis-1", **given) == ""


def test_the_systems_are_those_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for engine, system, version in PLATFORMS:
        assert f"| {system} | {engine.capitalize()} {version} |" in readme
    assert Path(ROOT / "molecule/platforms/molecule.yml").is_file()
