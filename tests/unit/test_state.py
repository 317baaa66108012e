"""What the module redis_state says of an instance, from the files of a host in a directory."""

from __future__ import annotations

import json
import syslog
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.proven.redis.plugins.module_utils.redis_set import (
    DOWN,
    NOT_OURS,
    VIRGIN,
)
from ansible_collections.proven.redis.plugins.modules import (
    redis_acl,
    redis_config,
    redis_service,
    redis_state,
)

from tests.support.ansible_runs import answer
from tests.support.runbooks import is_seen
from tests.tool.backup_lab import free_port

State = Callable[..., dict[str, Any]]
SECRETS = ("of-the-inventory", "before-that-one", "of-the-replicas")


@pytest.fixture
def state(tmp_path: Path) -> State:
    """Run the module as Ansible would, for an instance on a port; what it answers."""

    def read(port: int, **arguments: Any) -> dict[str, Any]:
        name = "redis" if port == 6379 else f"redis-{port}"
        given = {
            "instance": {
                "unit": f"no-such-server@{port}.service",
                "unit_dropin": str(tmp_path / "50-managed.conf"),
                "server": str(tmp_path / "redis-server"),
                "account": "redis",
                "config_file": str(tmp_path / f"{name}.conf"),
                "log_file": str(tmp_path / "log"),
                "addresses": ["127.0.0.1"],
                "port": port,
                "username": "operator",
                "password": SECRETS[0],
                "previous_password": SECRETS[1],
            },
            "replication": {"password": SECRETS[2]},
            "set_name": "redis",
            "mark": str(tmp_path / f"{name}.conf.managed"),
            "packages": ["redis-server"],
            "packaged_unit": "no-such-server.service",
            "packaged_config": str(tmp_path / "redis.conf"),
            "packaged_dir": str(tmp_path),
            "dir": str(tmp_path / str(port)),
            "dbfilename": "dump.rdb",
            **arguments,
        }
        return answer(redis_state, given, check=True)

    return read


def test_another_host_learns_of_the_instance_and_not_of_its_passwords(state: State) -> None:
    answered = state(port := free_port())
    assert answered["instance"]["unit"] == f"no-such-server@{port}.service"
    assert not {"username", "password", "previous_password"} & set(answered["instance"])
    # Ansible adds the arguments of the module to its answer.
    assert not [secret for secret in SECRETS if secret in json.dumps(answered)]


@pytest.mark.parametrize("before", ["redis.conf", "redis-6380.conf"])
def test_a_set_does_not_come_up_empty_on_another_port(
    state: State, tmp_path: Path, before: str
) -> None:
    (tmp_path / f"{before}.managed").write_text("redis\n", encoding="utf-8")
    found = state(free_port())["instance_state"]
    assert found["state"] == NOT_OURS
    port = "6380" if "6380" in before else "6379"
    assert f"on port {port}, says {tmp_path / before}.managed" in found["detail"]
    said = found["detail"].replace(str(tmp_path), "/etc/redis").replace("-6380.conf", ".conf")
    assert is_seen("foreign-redis#another-port", said)


def test_data_without_a_configuration_lies_where_the_inventory_says(
    state: State, tmp_path: Path, dump: bytes
) -> None:
    """And not in the directory in which Ansible happens to run the module."""
    port = free_port()
    (tmp_path / f"redis-{port}.conf.managed").write_text("redis\n", encoding="utf-8")
    (tmp_path / str(port)).mkdir()
    (tmp_path / str(port) / "dump.rdb").write_bytes(dump)
    found = state(port)
    assert found["instance_state"]["state"] == DOWN
    assert found["move"] is None


def test_two_sets_share_a_host(state: State, tmp_path: Path) -> None:
    """Before the second is deployed and after; so do two of the same name that did before."""
    port = free_port()
    (tmp_path / "redis.conf.managed").write_text("redis\n", encoding="utf-8")
    second = {"set_name": "sessions"}
    assert state(port, **second)["instance_state"]["state"] == VIRGIN
    (tmp_path / f"redis-{port}.conf.managed").write_text("sessions\n", encoding="utf-8")
    assert state(port, **second)["instance_state"]["state"] == VIRGIN
    (tmp_path / f"redis-{port}.conf.managed").write_text("redis\n", encoding="utf-8")
    assert state(port)["instance_state"]["state"] == VIRGIN


SECRET = "back\\slash\t'and' \"quotes\""
LOGIN = {"username": "default", "password": SECRET, "previous_password": f"{SECRET}2"}
OTHER_ARGUMENTS: dict[ModuleType, dict[str, Any]] = {
    redis_acl: {"content": "", "running": False},
    redis_config: {"content": "", "running": False, "has_data": False},
    redis_service: {},
    redis_state: {
        "replication": {"username": "default", "password": SECRET},
        "set_name": "redis",
        "mark": "/nowhere/marker",
        "packages": [],
        "packaged_unit": "redis-server.service",
        "packaged_config": "/nowhere/redis.conf",
        "packaged_dir": "/nowhere",
        "dir": "/nowhere",
        "dbfilename": "dump.rdb",
    },
}


@pytest.mark.parametrize("module", OTHER_ARGUMENTS, ids=lambda module: module.__name__)
def test_no_password_of_an_instance_is_logged(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logged: list[str] = []

    def journal(text: str, **_more: Any) -> None:
        logged.append(text)

    def began(*_: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(basic, "has_journal", True)
    monkeypatch.setattr(basic, "journal", SimpleNamespace(send=journal), raising=False)
    monkeypatch.setattr(syslog, "syslog", lambda _priority, text: logged.append(text))
    # The last thing that Ansible does before a module does its own.
    monkeypatch.setattr(AnsibleModule, "_set_cwd", began)
    where = {
        "unit": "redis-server.service",
        "unit_dropin": "/nowhere/50-managed.conf",
        "server": "/nowhere/redis-server",
        "account": "nobody",
        "config_file": "/nowhere/redis.conf",
        "log_file": "/nowhere/redis.log",
        "addresses": ["127.0.0.1"],
        "port": 1,
    }
    arguments = {"instance": {**where, **LOGIN}, **OTHER_ARGUMENTS[module]}
    arguments["_ansible_no_log"] = False  # as Ansible calls a module
    with patch_module_args(arguments), pytest.raises(InterruptedError):
        module.main()
    said = "".join(logged) + capsys.readouterr().out
    assert "slash" not in said
