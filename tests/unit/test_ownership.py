"""Owners and modes of an instance's files: seen, mended, and not given away."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.module_utils.redis_ownership import (
    Files,
    deviations,
    unusable,
)
from ansible_collections.proven.redis.plugins.modules import redis_config, redis_service

from tests.support.ansible_runs import answer

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="gives files to other accounts")

#: The account of the server, and one of somebody else.
SERVER, OTHER = pwd.getpwnam("nobody"), pwd.getpwnam("daemon")


class Host:
    """The files of an instance as the package, the role and the server make them."""

    def __init__(self, base: Path) -> None:
        base.chmod(0o755)
        for above in base.parents:
            if above.stat().st_uid == 0 and not above.stat().st_mode & 0o001:
                above.chmod(above.stat().st_mode | 0o011)
        self.config, self.log, self.data = base / "etc", base / "log", base / "data"
        self.aof = self.data / "appendonlydir"
        for folder, mode in (
            (self.config, 0o2770),
            (self.log, 0o2750),
            (self.data, 0o750),
            (self.aof, 0o750),
        ):
            folder.mkdir()
            os.chown(folder, SERVER.pw_uid, SERVER.pw_gid)
            folder.chmod(mode)
        self.make(self.config / "redis.conf", f"dir {self.data}\naclfile {self.acl}\n", 0o640)
        self.make(self.acl, "user default on nopass ~* +@all\n", 0o640)
        self.make(self.log / "redis.log", "", 0o660)
        self.make(self.data / "dump.rdb", "REDIS0011", 0o660)
        for name in ("appendonly.aof.manifest", "appendonly.aof.1.incr.aof"):
            self.make(self.aof / name, "", 0o660)

    @property
    def acl(self) -> Path:
        return self.config / "users.acl"

    def make(self, path: Path, text: str, mode: int) -> None:
        path.write_text(text, encoding="utf-8")
        os.chown(path, SERVER.pw_uid, SERVER.pw_gid)
        path.chmod(mode)

    @property
    def instance(self) -> dict[str, Any]:
        return {
            "unit": "none.service",
            "unit_dropin": str(self.config / "none.d" / "dropin"),
            "server": "/nowhere/redis-server",
            "account": SERVER.pw_name,
            "config_file": str(self.config / "redis.conf"),
            "log_file": str(self.log / "redis.log"),
            "addresses": ["127.0.0.1"],
            "port": 1,
        }

    @property
    def files(self) -> Files:
        return Files.of(self.instance, {"dir": str(self.data), "aclfile": str(self.acl)})


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def attributes(path: Path) -> str:
    status = path.stat()
    user, group = pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name
    return f"{user}:{group} {stat.S_IMODE(status.st_mode):04o}"


def test_what_is_right_is_left_alone(host: Host) -> None:
    assert deviations(host.files, SERVER, mend=True) == []
    assert unusable(host.files, SERVER) == []


GROUP = grp.getgrgid(SERVER.pw_gid).gr_name
# File, what somebody did to it, what becomes of it, and what the server could not do meanwhile.
CASES = [
    ("etc/redis.conf", "root:root 0600", f"nobody:{GROUP} 0640", "read"),
    ("etc/redis.conf", f"nobody:{GROUP} 0644", f"nobody:{GROUP} 0640", ""),
    ("etc/redis.conf", f"root:{GROUP} 0640", f"nobody:{GROUP} 0640", ""),
    ("etc/users.acl", "root:root 0600", f"nobody:{GROUP} 0640", "read"),
    ("etc", "root:root 0700", f"nobody:{GROUP} 0700", "read"),
    ("log/redis.log", "root:root 0644", f"nobody:{GROUP} 0644", "write to"),
    ("log/redis.log", "root:adm 0640", "nobody:adm 0640", "write to"),
    ("log", "root:adm 0750", "nobody:adm 0750", "write to"),
    ("data/dump.rdb", "root:root 0600", f"nobody:{GROUP} 0600", "read"),
    ("data/dump.rdb", f"nobody:{GROUP} 0644", f"nobody:{GROUP} 0640", ""),
    ("data/dump.rdb", "daemon:daemon 0400", f"nobody:{GROUP} 0600", "read"),
    ("data/appendonlydir", "root:root 0755", f"nobody:{GROUP} 0750", "write to"),
    (
        "data/appendonlydir/appendonly.aof.1.incr.aof",
        "root:root 0644",
        f"nobody:{GROUP} 0640",
        "write to",
    ),
]


@pytest.mark.parametrize(("name", "found", "wanted", "verb"), CASES)
def test_another_owner_or_mode_is_seen_and_mended(
    host: Host, tmp_path: Path, name: str, found: str, wanted: str, verb: str
) -> None:
    path = tmp_path / name
    owners, mode = found.split()
    user, group = owners.split(":")
    os.chown(path, pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid)
    path.chmod(int(mode, 8))
    problems = unusable(host.files, SERVER)
    assert bool(problems) is bool(verb), problems
    assert not verb or problems[0].startswith(f"cannot {verb} {tmp_path}/{name.split('/')[0]}")
    (seen,) = deviations(host.files, SERVER)
    assert (seen.path, str(seen.found), str(seen.wanted)) == (str(path), found, wanted)
    assert attributes(path) == found, "a look changed it"
    deviations(host.files, SERVER, mend=True)
    assert attributes(path) == wanted
    assert deviations(host.files, SERVER) == []
    assert unusable(host.files, SERVER) == []


def test_links_of_a_hostile_data_directory_are_not_followed(host: Host, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    (theirs / "appendonly.aof.1.base.rdb").touch(mode=0o600)
    (theirs / "secret").touch(mode=0o600)
    (host.data / "dump.rdb").unlink()
    (host.data / "dump.rdb").symlink_to(theirs / "secret")
    for name in os.listdir(host.aof):
        (host.aof / name).unlink()
    host.aof.rmdir()
    host.aof.symlink_to(theirs)
    deviations(host.files, SERVER, mend=True)
    for path in (theirs, *theirs.iterdir()):
        assert path.stat().st_uid == 0, path


def test_a_pipe_blocks_nothing(host: Host) -> None:
    (host.data / "dump.rdb").unlink()
    os.mkfifo(host.data / "dump.rdb")
    assert deviations(host.files, SERVER, mend=True) == []


def test_a_data_directory_is_not_entered_by_a_link_of_the_account(
    host: Host, tmp_path: Path
) -> None:
    """Of a second instance below the directory of the first, for example."""
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    (theirs / "dump.rdb").touch(mode=0o600)
    (host.data / "6380").symlink_to(theirs)
    files = host.files._replace(dir=str(host.data / "6380"))
    with pytest.raises(OSError):
        deviations(files, SERVER, mend=True)
    assert (theirs / "dump.rdb").stat().st_uid == 0


def test_a_link_in_a_directory_of_root_is_followed(host: Host, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("data")
    os.chown(host.data / "dump.rdb", 0, 0)
    files = host.files._replace(dir=str(tmp_path / "link"))
    deviations(files, SERVER, mend=True)
    assert (host.data / "dump.rdb").stat().st_uid == SERVER.pw_uid


def test_a_file_with_another_name_is_not_given_away(host: Host, tmp_path: Path) -> None:
    (tmp_path / "shadow").touch(mode=0o600)
    (host.data / "dump.rdb").unlink()
    os.link(tmp_path / "shadow", host.data / "dump.rdb")
    (seen,) = deviations(host.files, SERVER, mend=True)
    assert "hard link" in seen.objection
    assert (tmp_path / "shadow").stat().st_uid == 0


def test_a_snapshot_that_a_backup_holds_is_mended(host: Host) -> None:
    """The tool makes a hard link of it, and the server owns both."""
    os.link(host.data / "dump.rdb", host.data / "pinned")
    (host.data / "dump.rdb").chmod(0o644)
    (seen,) = deviations(host.files, SERVER, mend=True)
    assert seen.objection == ""
    assert attributes(host.data / "dump.rdb").endswith("0640")


def test_the_plan_shows_it_and_the_run_mends_it_once(host: Host) -> None:
    config = host.config / "redis.conf"
    content = config.read_text(encoding="utf-8")
    os.chown(config, 0, 0)
    config.chmod(0o600)
    arguments = {
        "instance": host.instance,
        "content": content,
        "running": False,
        "has_data": False,
    }
    line = f"{config}: root:root 0600 -> nobody:{GROUP} 0640 (owner and mode)"
    planned = answer(redis_config, arguments, check=True)
    assert planned["changed"]
    assert line in planned["plan"]
    assert attributes(config) == "root:root 0600"
    assert line in answer(redis_config, arguments, check=False)["plan"]
    assert attributes(config) == f"nobody:{GROUP} 0640"
    assert not answer(redis_config, arguments, check=False)["changed"]


def test_the_run_stops_at_a_file_that_it_will_not_give_away(host: Host, tmp_path: Path) -> None:
    (tmp_path / "shadow").touch(mode=0o600)
    (host.data / "dump.rdb").unlink()
    os.link(tmp_path / "shadow", host.data / "dump.rdb")
    arguments = {
        "instance": host.instance,
        "content": f"dir {host.data}\ntimeout 7\n",
        "running": False,
        "has_data": False,
    }
    told = answer(redis_config, arguments, check=False)["msg"]
    assert told.endswith("Nothing was changed on this host."), told
    assert "dump.rdb belongs to root:root 0600 and has another name" in told
    assert "timeout" not in (host.config / "redis.conf").read_text(encoding="utf-8")


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("name", ["etc/redis.conf", "log/redis.log", "data/dump.rdb"])
def test_a_restart_that_would_not_come_up_is_refused_before_the_stop(
    host: Host, tmp_path: Path, name: str, check: bool
) -> None:
    os.chown(tmp_path / name, OTHER.pw_uid, OTHER.pw_gid)
    (tmp_path / name).chmod(0o600)
    told = answer(
        redis_service, {"instance": host.instance, "state": "restarted", "save_first": True}, check
    )
    assert told["failed"]
    assert told["msg"].startswith("none.service was not restarted: the account nobody cannot ")
    assert f"{tmp_path / name} (daemon:daemon 0600)" in told["msg"]
    assert "Run site.yml, which mends owners and modes." in told["msg"]


@pytest.mark.parametrize("check", [True, False])
def test_the_data_directory_of_another_instance_is_not_taken(
    host: Host, tmp_path: Path, check: bool
) -> None:
    """Both would append to one file, and each would replace the other's snapshot."""
    (tmp_path / "link").symlink_to(host.data)
    other = host.config / "redis-6380.conf"
    host.make(other, f"port 6380\ndir {tmp_path}/link\n", 0o640)
    arguments = {"instance": host.instance, "state": "started"}
    # One that this role did not deploy has no mark, as the sentinel.conf of Debian.
    assert "data directory" not in answer(redis_service, arguments, check=True).get("msg", "")
    host.make(Path(f"{other}.managed"), "other\n", 0o644)
    told = answer(redis_service, arguments, check)["msg"]
    assert told.startswith(f"none.service was not started: {host.data} is the data directory of ")
    assert f"the server of {other} too" in told
    # Its own file may be about to change.
    assert answer(
        redis_config,
        {
            "instance": host.instance,
            "content": f"dir {host.data}\ntimeout 7\n",
            "running": False,
            "has_data": False,
        },
        check=True,
    )["changed"]


@pytest.mark.parametrize("folder", ["/var/run/redis-data", "/run/a/b", "/dev/shm/redis"])
def test_nothing_is_kept_in_memory(host: Host, folder: str) -> None:
    arguments = {
        "instance": host.instance,
        "content": f"dir {folder}\n",
        "running": False,
        "has_data": False,
    }
    told = answer(redis_config, arguments, check=True)["msg"]
    assert "lies in memory: at the next stop or boot, what is there is gone." in told
