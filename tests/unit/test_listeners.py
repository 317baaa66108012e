"""Who listens on a port: real sockets of real processes."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.module_utils.listeners import (
    Listener,
    listeners,
    listening_inodes,
    unit_of,
)
from ansible_collections.proven.redis.plugins.modules import listening_port

from tests.support.ansible_runs import answer

LISTEN = """\
import socket, sys
server = socket.create_server((sys.argv[1], 0), family=int(sys.argv[2]))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=[("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)], ids=["v4", "v6"])
def holder(request: pytest.FixtureRequest) -> Iterator[tuple[str, int, int]]:
    """Address, port and process id of another process that listens."""
    address, family = request.param
    command = [sys.executable, "-c", LISTEN, address, str(int(family))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            yield address, int(process.stdout.readline()), process.pid
        finally:
            process.kill()


def arguments(port: int, **more: Any) -> dict[str, Any]:
    return {"port": port, "unit": "ours.service", "variable": "our_port", **more}


def test_the_process_is_found_by_its_port(holder: tuple[str, int, int]) -> None:
    address, port, pid = holder
    (found,) = listeners(port)
    assert (found.address, found.pid) == (address, pid)
    assert found.name.startswith("python")
    # A connection to it is no listener.
    with socket.create_connection((address, port)):
        assert len(listeners(port)) == 1


def test_a_port_of_another_is_refused_with_its_name(holder: tuple[str, int, int]) -> None:
    address, port, pid = holder
    told = answer(listening_port, arguments(port), check=True)
    assert told["msg"].startswith(f"Nothing was changed. Port {port} is held by python")
    assert f"process {pid}" in told["msg"]
    assert f"on {address}, so ours.service cannot listen there" in told["msg"]
    assert "our_port" in told["msg"]
    late = answer(listening_port, arguments(port, state="listening", timeout=1), check=False)
    assert late["msg"].startswith(f"Port {port} is held by python")


def test_a_free_port_may_be_taken_and_is_listened_on_by_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert answer(listening_port, arguments(port), check=False)["listeners"] == []
    told = answer(listening_port, arguments(port, state="listening", timeout=1), check=False)
    assert told["msg"].startswith(
        f"ours.service was started and does not listen on port {port} after 1 s."
    )


def test_what_the_unit_itself_holds_is_right(
    holder: tuple[str, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, port, pid = holder
    ours = [Listener(address, pid, "rsync", "ours.service")]
    monkeypatch.setattr(listening_port, "listeners", lambda _port: ours)
    for state in ("free", "listening"):
        told = answer(listening_port, arguments(port, state=state), check=False)
        assert told["listeners"] == [f"rsync (process {pid}, ours.service)"]
    # Beside another one, on another address.
    ours.append(Listener("::", 1, "systemd", "init.scope"))
    told = answer(listening_port, arguments(port, state="listening"), check=False)
    assert "A socket unit has it (systemctl list-sockets): disable that" in told["msg"]


def test_the_unit_is_that_of_the_cgroup() -> None:
    assert unit_of("0::/system.slice/rsync.service\n") == "rsync.service"
    assert unit_of("0::/docker/abc/system.slice/a@6380.service/sub\n") == "a@6380.service"
    assert unit_of("12:pids:/x\n1:name=systemd:/system.slice/rsync.service\n") == "rsync.service"
    assert unit_of("0::/user.slice/user-0.slice/session-1.scope\n") == "session-1.scope"
    assert unit_of("0::/\n") == ""


def test_only_listening_sockets_count() -> None:
    line = "0: 0100007F:0369 00000000:0000 {} 00000000:00000000 00:00000000 00000000 0 0 77 1\n"
    assert listening_inodes([line.format("0A")], 873) == {77: "127.0.0.1"}
    assert listening_inodes([line.format("01"), "garbage"], 873) == {}
    assert listening_inodes([line.format("0A")], 874) == {}
