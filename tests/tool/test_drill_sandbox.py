"""How the drill judges the confinement of its server: the evidence, and who gathers it."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis_backup.base.errors import ToolError, UsageError
from redis_backup.drill import assertions
from redis_backup.sandbox import configuration, confinement, errors, launchers, prober
from redis_backup.sandbox.server import SandboxServer

from tests.tool.backup_lab import PACKAGE

ROLE = Path(__file__).resolve().parents[2] / "roles" / "redis_restore_drill"
OWN = {"mnt": "mnt:[1]", "net": "net:[1]", "user": "user:[1]", "ipc": "ipc:[1]"}
CONFINED: dict[str, Any] = {
    "pid": 4711,
    "start_time": "1",
    "uid": 61843,
    "uids": [61843, 61843, 61843],
    "namespaces": {"mnt": "mnt:[2]", "net": "net:[2]", "user": "user:[1]", "ipc": "ipc:[2]"},
    "interfaces": ["lo"],
    "write": {"/etc": "EROFS", "/usr": "EROFS", "/var": "EROFS"},
    "network": {"inet": "EAFNOSUPPORT", "inet6": "EAFNOSUPPORT"},
    "status": {"NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0000", "CapBnd": "0000"},
    "memory": {
        "expected": 1000,
        "cgroup": None,
        "address_space": 1000,
        "allocation_refused": True,
    },
}


def changed(*path: str, to: object) -> dict[str, Any]:
    """The evidence of a confined server, but for one thing."""
    evidence = copy.deepcopy(CONFINED)
    place = evidence
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return evidence


def test_a_confined_server_lacks_nothing() -> None:
    assert confinement.missing_confinement(CONFINED, 1000, OWN) == []


@pytest.mark.parametrize(
    ("evidence", "missing"),
    [
        (changed("namespaces", "net", to="net:[1]"), "a network of its own"),
        (changed("namespaces", to={"mnt": "mnt:[2]"}), "a network of its own"),
        (changed("interfaces", to=["eth0", "lo"]), "a network without interfaces"),
        (changed("network", "inet", to="done"), "no way out by inet"),
        (changed("network", "inet6", to="done"), "no way out by inet6"),
        (changed("namespaces", "mnt", to="mnt:[1]"), "a view of the file system of its own"),
        (changed("write", "/etc", to="done"), "a read-only /etc"),
        (changed("write", "/usr", to="EACCES"), "a read-only /usr"),
        (changed("uids", to=[0, 0, 0]), "a user of its own"),
        (changed("uids", to=[1000, 1000, 1000]), "a user of its own"),
        (changed("uids", to=[61843, 61843, 0]), "a user of its own"),
        (changed("status", "NoNewPrivs", to="0"), "no new privileges"),
        (changed("status", "Seccomp", to="0"), "a system call filter"),
        (changed("status", "CapEff", to="00000000a80425fb"), "no capabilities"),
        (changed("status", "CapBnd", to="00000000a80425fb"), "no capabilities"),
        (changed("memory", "address_space", to=None), "a memory limit"),
        (changed("memory", "address_space", to=1001), "a memory limit"),
        (changed("memory", "allocation_refused", to=False), "a memory limit"),
    ],
)
def test_each_missing_confinement_is_told(evidence: dict[str, Any], missing: str) -> None:
    [told] = confinement.missing_confinement(evidence, 1000, OWN)
    assert told.startswith(missing)


def test_the_memory_limit_in_force_is_told() -> None:
    mebibyte = 2**20
    memory = {
        "expected": 1000 * mebibyte,
        "cgroup": 900 * mebibyte,
        "address_space": 1000 * mebibyte,
        "allocation_refused": True,
    }
    assert confinement.memory_limit({"memory": memory}) == "900 MiB by cgroup"
    by_space = {**memory, "cgroup": 2000 * mebibyte}
    assert confinement.memory_limit({"memory": by_space}) == "1000 MiB by address space"


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "5000\n"}, 5000),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "7000\n"}, 7000),
        ("0::/a/b\n", {"a/b/memory.max": "max\n"}, None),
        ("0::/a\n", {"unified/a/memory.max": "6000\n"}, 6000),
        ("4:memory:/a\n0::/a\n", {"memory/a/memory.limit_in_bytes": "4000\n"}, 4000),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("4:cpu,memory:/gone\n", {"memory/memory.limit_in_bytes": "3000\n"}, 3000),
        ("1:name=systemd:/a\n", {}, None),
    ],
)
def test_the_limit_of_a_cgroup_is_read_upwards(
    tmp_path: Path, own: str, files: dict[str, str], limit: int | None
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert prober.cgroup_limit(own, tmp_path) == limit


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024", 1024), ("3K", 3072), ("2M", 2**21), ("1G", 2**30), ("50%", 500), ("100%", 1000)],
)
def test_memory_settings(text: str, size: int) -> None:
    assert prober.parse_memory(text, 1000) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5G", "101%", "1P", "infinity"])
def test_memory_settings_that_are_none(text: str) -> None:
    with pytest.raises(ToolError, match="memory limit"):
        prober.parse_memory(text, 1000)


def test_an_unconfined_server_is_seen_and_loads_nothing(tmp_path: Path) -> None:
    """The real prober, with nothing around it, against the judge."""
    directory = tmp_path / "sandbox"
    launcher = launchers.ProcessLauncher(directory, memory_max="512M")
    launcher.confined = True  # as if a unit had been asked for, and did not confine
    server = SandboxServer(directory, launcher)
    server.clear()
    try:
        server.dump.write_bytes(b"REDIS")
        binary = tmp_path / "binary"
        binary.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        binary.chmod(0o755)
        with pytest.raises(errors.NotConfinedError) as told:
            server.start(str(binary), "", require_sandbox=True)
        for missing in (
            "a network of its own",
            "a view of the file system of its own",
            "a read-only /etc, /usr, /var" if os.getuid() == 0 else "a read-only",
            "a user of its own",
            "a system call filter",
        ):
            assert missing in str(told.value)
        # The one limit that needs no unit is in force all the same.
        assert "a memory limit" not in str(told.value)
        assert told.value.state.startswith("not enforced: ")
        assert not (directory / "in" / "go").exists()
    finally:
        server.clear()
    assert not (tmp_path / "started").exists()


def test_a_prober_that_ends_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    directory = tmp_path / "sandbox"
    server = SandboxServer(directory, launchers.ProcessLauncher(directory))
    server.clear()
    server.dump.write_bytes(b"REDIS")
    started = time.monotonic()
    with pytest.raises(errors.SandboxError, match="did not come up"):
        server.start("/bin/false", "", require_sandbox=False)
    server.clear()
    assert time.monotonic() - started < launchers.EVIDENCE_TIMEOUT / 2


def test_the_prober_limits_its_own_memory(tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    greedy = tmp_path / "greedy"
    greedy.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'bytearray(600 * 2**20)'\n")
    greedy.chmod(0o755)
    order = {"server": str(greedy), "nonce": "n"}
    (tmp_path / "in" / "order.json").write_text(json.dumps(order))
    (tmp_path / "in" / "go").touch()
    command = [sys.executable, "-m", "redis_backup.sandbox.prober", f"--directory={tmp_path}"]
    done = subprocess.run(
        [*command, "--memory-max=512M"], env={**os.environ, "PYTHONPATH": str(PACKAGE)}, check=False
    )
    assert done.returncode == 1
    assert "MemoryError" in (tmp_path / "out" / "server.log").read_text()
    evidence = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert evidence["memory"]["address_space"] == 512 * 2**20
    assert evidence["memory"]["allocation_refused"] is True


def test_the_prober_needs_no_redis_module(tmp_path: Path) -> None:
    (tmp_path / "redis.py").write_text("raise ImportError('not for the prober')\n")
    done = subprocess.run(
        [sys.executable, "-m", "redis_backup.sandbox.prober", f"--directory={tmp_path}"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{PACKAGE}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("sandbox prober: ")
    assert "order.json" in done.stderr


def test_a_server_cannot_lead_the_tool_to_another_file(tmp_path: Path) -> None:
    """What it leaves may be anything: a link to a secret, a pipe that never ends."""
    directory = tmp_path / "sandbox"
    server = SandboxServer(directory, launchers.ProcessLauncher(directory))
    server.clear()
    secret = tmp_path / "secret"
    secret.write_text("the secret\n")
    log = directory / "out" / "server.log"
    log.symlink_to(secret)
    assert server.last_words() == "it left no log"
    log.unlink()
    log.hardlink_to(secret)
    assert server.last_words() == "it left no log"
    log.unlink()
    os.mkfifo(log)
    assert server.last_words() == "it left no log"
    log.unlink()
    log.write_text("1:S 1 # Short read\n1:S 1 * Connecting to MASTER 127.0.0.1:1\n")
    assert server.last_words() == "Short read"


def test_versions_are_those_that_binaries_tell(tmp_path: Path) -> None:
    binary = shutil.which("redis-server")
    assert binary is not None
    assert configuration.server_version(binary)[0] == "redis"
    told = tmp_path / "server"
    for text, version in (
        ("Redis server v=7.0.15 sha=00000000:0", ("redis", (7, 0))),
        ("Valkey server v=8.1.1 sha=00000000:0", ("valkey", (8, 1))),
    ):
        told.write_text(f"#!/bin/sh\necho '{text}'\n")
        told.chmod(0o755)
        assert configuration.server_version(str(told)) == version
    told.write_text("#!/bin/sh\necho nothing\n")
    with pytest.raises(ToolError, match="no known server"):
        configuration.server_version(str(told))
    with pytest.raises(ToolError, match="does not run"):
        configuration.server_version(str(tmp_path / "none"))


def test_options_that_a_release_does_not_know_are_left_out() -> None:
    def options(release: tuple[int, int]) -> str:
        return configuration.server_config(
            directory=Path("/x"), databases=20, engine="redis", release=release, settings={}
        )

    assert "sanitize-dump-payload yes" in options((7, 0))
    assert "sanitize-dump-payload" not in options((6, 0))
    assert "databases 20\n" in options((7, 0))


def test_of_the_settings_of_a_manifest_the_known_ones_are_taken() -> None:
    """A manifest comes from a host that may have been taken over."""

    def options(settings: dict[str, str]) -> set[str]:
        text = configuration.server_config(
            directory=Path("/x"), databases=20, engine="redis", release=(7, 0), settings=settings
        )
        return set(text.splitlines())

    plain = options({})
    assert "databases 20" in plain
    good = {"rdbcompression": "yes", "list-max-listpack-size": "-2", "databases": "64"}
    assert options(good) - plain == {
        "rdbcompression yes",
        "list-max-listpack-size -2",
        "databases 64",
    }
    assert "databases 65536" in options({"databases": "999999999"})
    for name, value in (
        ("dir", "1"),
        ("appendonly", "yes"),
        ("rdbcompression", "1"),
        ("rdbcompression", "no\nappendonly yes"),
        ("hash-max-listpack-entries", "yes"),
        ("hash-max-listpack-entries", "1 2"),
        ("hash-max-listpack-entries", "9" * 19),
        ("databases", "yes"),
    ):
        assert options({name: value}) == plain, name
    # One limit has two names since Redis 7.0.
    both = {"hash-max-ziplist-value": "64", "hash-max-listpack-value": "65"}
    assert options(both) - plain == {"hash-max-listpack-value 65"}
    assert options({"hash-max-ziplist-value": "64"}) - plain == {"hash-max-ziplist-value 64"}


def test_the_role_binds_what_the_tool_expects() -> None:
    variables = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
    assert variables["__redis_restore_drill_inside"] == str(prober.INSIDE)


@pytest.mark.parametrize(
    ("expect", "reply", "holds"),
    [
        ({"equals": 5}, 5, True),
        ({"equals": 5}, "5", True),
        ({"equals": "5"}, 5, True),
        ({"equals": 5}, "05", False),
        ({"equals": None}, None, True),
        ({"equals": ""}, None, False),
        ({"equals": ["a", 1]}, ["a", "1"], True),
        ({"equals": ["a"]}, ["a", "b"], False),
        ({"at_least": 10}, 10, True),
        ({"at_least": 10}, "10.5", True),
        ({"at_least": 10}, 9, False),
        ({"at_least": 10}, "nan", False),
        ({"at_least": 10}, None, False),
        ({"at_least": 2**63 - 1}, 2**63 - 2, False),
        ({"matches": "^a.c$"}, "abc", True),
        ({"matches": "^a.c$"}, "abcd", False),
        ({"matches": "1"}, 21, True),
        ({"matches": "."}, None, False),
    ],
)
def test_assertions_are_judged(expect: dict[str, Any], reply: Any, holds: bool) -> None:
    [question] = assertions.parse([{"command": ["GET", "a"], "expect": expect}], "here")
    assert (assertions.evaluate(question, reply) is None) is holds


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({}, "must be a list"),
        (["GET"], "must be a mapping"),
        ([{"command": ["GET"], "expect": {"equals": 1}, "more": 1}], "unknown key 'more'"),
        ([{"command": [], "expect": {"equals": 1}}], "command must be a list"),
        ([{"command": ["GET"], "expect": {}}], "exactly one of"),
        ([{"command": ["GET"], "expect": {"equals": 1, "at_least": 1}}], "exactly one of"),
        ([{"command": ["GET"], "expect": {"is": 1}}], "exactly one of"),
        ([{"command": ["GET"], "expect": {"at_least": "x"}}], "must be a number"),
        ([{"command": ["GET"], "expect": {"matches": "("}}], "no regular expression"),
        ([{"command": ["GET"], "expect": {"equals": True}}], "equals is True"),
        ([{"db": -1, "command": ["GET"], "expect": {"equals": 1}}], "db must be a number"),
    ],
)
def test_assertions_that_are_none_are_told(raw: object, words: str) -> None:
    with pytest.raises(UsageError) as told:
        assertions.parse(raw, "here")
    assert str(told.value).startswith("here: ")
    assert words in str(told.value)


def test_long_replies_are_cut() -> None:
    assert assertions.shown("x" * 300) == "x" * 200 + "…"
    assert assertions.from_wire([b"a", None, 1, [b"\xff"]]) == ["a", None, 1, ["\\xff"]]


def test_clearing_empties_the_directories_and_keeps_them(tmp_path: Path) -> None:
    """`out` may be a mounted file system, which could not be removed."""
    work = SandboxServer(tmp_path / "sandbox", launchers.ProcessLauncher(tmp_path / "sandbox"))
    work.clear()
    out = tmp_path / "sandbox" / "out"
    before = out.stat().st_ino
    (out / "server.log").write_text("words")
    (out / "link").symlink_to(tmp_path)
    (out / "directory").mkdir()
    (out / "directory" / "file").touch()
    work.clear()
    assert out.stat().st_ino == before
    assert list(out.iterdir()) == []
    assert out.stat().st_mode & 0o777 == 0o777
