"""The data files of an instance that is about to be started or restarted: looked at as its release
of Redis will, read by the programs that come with it, and made ready for the start.

Everything is done as the server's user: what that cannot read, the server cannot load, and it must
not be able to make root follow a link of its own.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ansible_collections.proven.redis.plugins.module_utils.conf_text import quote
from ansible_collections.proven.redis.plugins.module_utils.redis_disk import (
    DataFiles,
    data_files,
    manifest_file,
    manifest_parts,
    reads_single_file,
    single_file,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_move import (
    NO_LINK,
    Place,
    acting_as,
    copy,
    remove,
    sync_directory,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_start import (
    AOF,
    CUT_OFF,
    RDB,
    STOP,
    Choice,
    damaged,
    describe_aof,
    describe_rdb,
    ended_with_aof,
    is_cut_off,
    what_to_load,
)

LOG_END = 1 << 14  # bytes
# Beside the data, until they have their names: what a killed run leaves is made anew.
UNFINISHED = ".unfinished"
ASIDE = ".aside-"


class Verdict(NamedTuple):
    """What a program of the server says of a file: its keys, where it counts them, and what is
    wrong with it."""

    keys: int | None
    problem: str


class Disk:
    """The data files of an instance.

    Args:
        instance: the option `instance` of the modules.
        place: where they lie.
    """

    def __init__(self, instance: Mapping[str, Any], place: Place) -> None:
        self.instance = instance
        self.place = place
        self.names = place.names()
        self.release: tuple[int, ...] = (7, 0)
        # In check mode, the server may not be installed yet.
        self.installed = os.path.exists(instance["server"])
        if self.installed:
            shown = subprocess.run(
                [instance["server"], "--version"], capture_output=True, text=True, check=False
            ).stdout
            found = re.search(r"\bv=(\d+)\.(\d+)", shown)
            if found:
                self.release = (int(found[1]), int(found[2]))

    @property
    def rdb(self) -> str:
        return os.path.join(self.place.dir, self.place.dbfilename)

    @property
    def is_single(self) -> bool:
        """Whether this release loads an append-only file of one part."""
        return reads_single_file(self.place.dir, self.names, self.release)

    @property
    def aof(self) -> str:
        """The append-only file: the one of 6.x, or the directory of several."""
        if self.is_single:
            return single_file(self.place.dir, self.names)
        return os.path.join(self.place.dir, self.place.appenddirname)

    def look(self) -> DataFiles:
        return data_files(self.place.dir, self.names, self.release)

    def choose(self, was: bool | None, truncates: bool = True) -> Choice:
        """What has to be loaded, seen to be whole by the server's own programs.

        Args:
            was: as `what_to_load` takes it.
            truncates: whether the server loads a file whose last command was cut off.
        """
        files = self.look()
        choice = what_to_load(files, was, self.ended_with_aof(), time.time())
        problem = ""
        if choice.load == RDB:
            problem = self.check_rdb().problem
        elif choice.load == AOF:
            problem = self.check_aof(truncates)
        if problem:
            kind = "RDB" if choice.load == RDB else "append-only file"
            return Choice(STOP, damaged(kind, problem))
        return choice

    def describe(self) -> str:
        """What lies there, with numbers."""
        files = self.look()
        counted = self.check_rdb().keys if files.rdb.has_data else None
        words = [
            describe_rdb(os.path.basename(self.rdb), files.rdb, counted),
            describe_aof(os.path.basename(self.aof), files.aof),
        ]
        if files.other.there:
            name = self.place.appenddirname if self.is_single else self.place.appendfilename
            words.append(describe_aof(f"{name} (of another release)", files.other))
        return f"In {self.place.dir} lie {'; '.join(words)}."

    def ended_with_aof(self) -> bool:
        """Whether the last server says so; see `redis_start.ended_with_aof`."""
        try:
            with open(self.instance["log_file"], "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_END))
                log = file.read().decode("utf-8", "replace")
                logged = os.fstat(file.fileno()).st_mtime
        except OSError:
            return False
        touched = max((os.lstat(path).st_ctime for path in self.paths()), default=0.0)
        return bool(ended_with_aof(log, logged, touched))

    def paths(self) -> Iterator[str]:
        """Every file of the data, and the directory of the append-only file."""
        for path in self.place.paths():
            if os.path.lexists(path):
                yield path
            if os.path.isdir(path) and not os.path.islink(path):
                for entry in os.scandir(path):
                    yield entry.path

    def program(self, kind: str, path: str) -> tuple[int, str]:
        """Have redis-check-rdb or redis-check-aof read a file, as the server's user."""
        folder, name = os.path.split(self.instance["server"])
        program = os.path.join(folder, name.replace("-server", f"-check-{kind}"))
        if not self.installed or not os.path.exists(program):
            return 0, ""
        account = pwd.getpwnam(self.instance["account"])
        who: dict[str, Any] = {}
        if os.geteuid() == 0:
            groups = os.getgrouplist(account.pw_name, account.pw_gid)
            who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
        done = subprocess.run(
            [program, path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            cwd="/",
            **who,
        )
        return done.returncode, done.stdout

    def check_rdb(self) -> Verdict:
        """Have the RDB read to its end."""
        code, said = self.program("rdb", self.rdb)
        found = re.search(r"^\[info\] (\d+) keys read", said, re.MULTILINE)
        keys = int(found[1]) if found else None
        return Verdict(keys if code == 0 else None, "" if code == 0 else _complaint(said))

    def check_aof(self, truncates: bool) -> str:
        """Have the append-only file read to its end; what is wrong with it."""
        parts = [self.aof]
        path = self.aof
        if not self.is_single:
            path = manifest_file(self.place.dir, self.names)
            parts = [part for part, _, _ in manifest_parts(self.place.dir, self.names)]
        code, said = self.program("aof", path)
        if code == 0:
            return ""
        analyzed = re.findall(
            r"^AOF analyzed: (?:filename=(.*), )?size=\d+, ok_up_to=(\d+),", said, re.MULTILINE
        )
        last = parts[-1]
        if truncates and analyzed and analyzed[-1][0] in ("", os.path.basename(last)):
            with open(last, "rb") as file:
                file.seek(int(analyzed[-1][1]))
                tail = file.read(CUT_OFF + 1)
            if len(tail) <= CUT_OFF and is_cut_off(tail):
                return ""
        return _complaint(said)

    def make_base(self) -> str | None:
        """Make the RDB the beginning of a new append-only file; where the former one is kept.

        At every moment the files hold what the RDB holds, whatever `appendonly` says: the RDB
        itself stays. The former append-only file gets another name.

        Raises:
            OSError: there is no room, or the server's user may not write there.
        """
        account = pwd.getpwnam(self.instance["account"])
        with acting_as(account.pw_uid, account.pw_gid):
            target = self.aof
            unfinished = target + UNFINISHED
            remove(unfinished)
            if self.is_single:
                copy(self.rdb, unfinished)
            else:
                self._make_parts(unfinished)
            aside = None
            if os.path.lexists(target):
                aside = target + time.strftime(f"{ASIDE}%Y%m%dT%H%M%SZ", time.gmtime())
                os.rename(target, aside)
            os.rename(unfinished, target)
            sync_directory(self.place.dir)
            return aside

    def _make_parts(self, folder: str) -> None:
        os.mkdir(folder, 0o750)
        name = f"{self.place.appendfilename}.1.base.rdb"
        base = os.path.join(folder, name)
        try:
            # Redis never changes an RDB: it puts a new one in its place.
            os.link(os.path.realpath(self.rdb), base)
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            copy(os.path.realpath(self.rdb), base)
        manifest = os.path.join(folder, f"{self.place.appendfilename}.manifest")
        with open(manifest, "w", encoding="utf-8", errors="surrogateescape") as file:
            # As the server writes it under its unit.
            os.fchmod(file.fileno(), 0o660)
            file.write(f"file {quote(name)} seq 1 type b\n")
            file.flush()
            os.fsync(file.fileno())
        sync_directory(folder)

    def not_what_is_written(self, pid: int) -> str:
        """Why the append-only file is not the one that a running server writes; empty where it is.

        A file that was removed or renamed is written on by the server, and not found by the next.
        """
        if self.is_single:
            last = self.aof
        else:
            try:
                parts = manifest_parts(self.place.dir, self.names)
            except (OSError, ValueError) as error:
                return f"its manifest cannot be read ({error})"
            gone = [os.path.basename(path) for path, _, _ in parts if not os.path.isfile(path)]
            if gone or not parts:
                return f"{', '.join(gone) or 'every part of it'} is gone"
            last = parts[-1][0]
        try:
            status = os.stat(last)
        except OSError as error:
            return f"{os.path.basename(last)}: {error.strerror}"
        if (status.st_dev, status.st_ino) not in set(_opened(pid)):
            return f"{os.path.basename(last)} is another file than the one that the server writes"
        return ""

    def another_aof(self, pid: int) -> bool:
        """Whether files lie in the way of a rewrite that are not what a running server writes."""
        ours = set(_opened(pid))
        if self.is_single:
            found = [self.aof]
        elif os.path.isdir(self.aof) and os.path.lexists(manifest_file(self.place.dir, self.names)):
            try:
                parts = manifest_parts(self.place.dir, self.names)
            except (OSError, ValueError):
                return False
            found = [path for path, _, kind in parts if kind == "i"]
        else:
            return os.path.lexists(self.aof) and not os.path.isdir(self.aof)
        states = [os.stat(path) for path in found if os.path.exists(path)]
        return bool(states) and not any((s.st_dev, s.st_ino) in ours for s in states)


def _opened(pid: int) -> Iterator[tuple[int, int]]:
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            status = os.stat(os.path.join(folder, name))
        except OSError:
            continue
        yield status.st_dev, status.st_ino


def _complaint(said: str) -> str:
    """The line of the output of a program that says what is wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    wrong = re.compile(
        r"RDB ERROR|Expected|Unexpected|not valid|Cannot|Reached EOF|Zero|error", re.I
    )
    found = [line for line in lines if wrong.search(line) and "--- RDB ERROR" not in line]
    return (found or lines or ["it says nothing"])[0].rstrip(".")


def unmounted(folder: str) -> str | None:
    """The mount point at or above a directory where systemd has something to mount and has not."""
    folder = os.path.abspath(folder)
    os.path.exists(os.path.join(folder, "."))  # has an automount unit mount it
    points = []
    while folder != "/":
        points.append(folder)
        folder = os.path.dirname(folder)
    try:
        names = _output("systemd-escape", "--path", "--suffix=mount", *points).split()
        shown = _output("systemctl", "show", "--property=LoadState,ActiveState", *names)
    except (OSError, subprocess.CalledProcessError):
        return None
    for point, state in zip(points, shown.strip().split("\n\n")):
        lines = set(state.split())
        if "LoadState=loaded" in lines and "ActiveState=active" not in lines:
            return point
    return None


def _output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
