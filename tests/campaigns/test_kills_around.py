"""kill -9 of all that a backup needs: BGSAVE's child, Redis, rsync on both sides, `accept`;
and of a drill and its sandboxed server.

The tool says what happened or did not notice; the next run is good and nothing is left.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import redis
from redis_backup.repository import catalogue

from tests.campaigns.conftest import Size, TellTable
from tests.campaigns.scene import LEFT, NEXT, PROMISES, Scene, Source, scene
from tests.support import processes
from tests.support.processes import Process
from tests.tool.backup_lab import drill_config, wait_until

DRILL = (
    "drill.stopping.locked leave",
    "drill.run._Drill._clear leave",
    "subprocess.Popen.communicate enter",
    "drill.run._Drill._fetch leave",
    "drill.run._Drill._fetch_manifest leave",
    "drill.run._Drill._check_room leave",
    "drill.run._Drill._fetch leave 3",
    "repository.reread.unpack enter",
    "transport.zstd.HashingReader.readinto leave 2",
    "repository.reread.unpack leave",
    "sandbox.server.SandboxServer.start enter",
    "sandbox.launchers.ProcessLauncher.start leave",
    "sandbox.server.SandboxServer._wait_for_evidence leave",
    "sandbox.server.SandboxServer.start leave",
    "repository.reread.walk enter",
    "repository.reread.walk leave",
    "sandbox.server.SandboxServer.connect leave",
    "sandbox.server.SandboxServer.wait_loaded leave",
    "sandbox.client.Client.keyspace leave",
    "drill.run._Drill._compare_values leave",
    "drill.run._Drill.run leave",
    "drill.report.conclude enter",
    "drill.report.report leave",
    "posix.replace enter",
    "drill.report._keep leave",
    "transport.rsync.upload enter",
    "transport.rsync.upload leave",
)


WRONG = "wrong verdicts"


class Slow(Source):
    """A Redis host whose saves and transfers take long enough to be met."""

    def __init__(self, place: Scene) -> None:
        super().__init__(place)
        with self.redis.client() as client:
            client.set("bulk", os.urandom(10_000_000))
            client.save()  # what a killed server is started again on
        self.orphans: list[Process] = []

    def met(self, kill: Callable[[int], bool], later: float) -> tuple[int, str, bool]:
        """Run the tool and, so many seconds after it began, try to kill something until that is
        done or the tool has ended. Returns its code, what it said, and whether anything was killed.
        """
        killed = False
        self.configure(receipt_timeout_seconds=3)
        with self.place.start(*self.create) as process:
            time.sleep(later)
            while not killed and process.poll() is None:
                killed = kill(process.pid)
            out, err = process.communicate(timeout=180)
        assert "Traceback" not in err
        self.place.settle(process.pid)
        self.configure()
        return process.returncode, out + err, killed

    def slow(self, microseconds: int) -> None:
        """How long each key takes to save: there are some three hundred."""
        with self.redis.client() as client:
            client.config_set("rdb-key-save-delay", microseconds)

    def saves(self) -> bool:
        """Whether a child of the server saves, or one of a server that was killed."""
        alive = {process.pid for process in processes.running()}
        return bool(processes.below(self.redis.process.pid)) or any(
            process.pid in alive for process in self.orphans
        )

    def restart(self) -> None:
        """Start the server again on what it left."""
        self.redis.process.wait()
        binary = shutil.which("redis-server")
        assert binary is not None
        self.redis.process = subprocess.Popen(
            [binary, str(self.redis.directory / "redis.conf")], stdout=subprocess.DEVNULL
        )

        def answers() -> bool:
            try:
                with self.redis.client() as client:
                    return bool(client.ping())
            except redis.exceptions.RedisError:
                return False

        wait_until(answers, "redis-server")

    def restart_rsync(self) -> None:
        """Start the daemon again, on another port."""
        assert self.place.server.process is not None
        self.place.server.process.wait()
        self.place.server.start_rsync()
        self.configure()


def named(found: list[Process], *names: str) -> list[Process]:
    """Those of these names."""
    return [process for process in found if process.name in names]


def bgsave(source: Slow, _: int) -> bool:
    """The child that saves."""
    return any(process.kill() for process in processes.below(source.redis.process.pid))


def whole_redis(source: Slow, _: int) -> bool:
    """The server while it saves; its child may live on, or die with it."""
    children = processes.below(source.redis.process.pid)
    if not children:
        return False
    source.redis.process.kill()
    if int(time.monotonic() * 1000) % 2:
        for process in children:
            process.kill()
    source.orphans = children
    return True


def rsync_client(_: Slow, session: int) -> bool:
    """rsync on the Redis host."""
    return any(process.kill() for process in named(processes.of_session(session), "rsync"))


def rsync_server(source: Slow, _: int) -> bool:
    """The daemon's process for one connection."""
    daemon = source.place.server.process
    assert daemon is not None
    return any(process.kill() for process in named(processes.below(daemon.pid), "rsync"))


def rsync_daemon(source: Slow, session: int) -> bool:
    """The daemon and all connections, in the middle of one."""
    daemon = source.place.server.process
    assert daemon is not None
    if not rsync_server(source, session):
        return False
    daemon.kill()
    for process in processes.below(daemon.pid):
        process.kill()
    return True


def accept(source: Slow, _: int) -> bool:
    """What the end of a transfer started."""
    daemon = source.place.server.process
    assert daemon is not None
    found = [process for process in processes.below(daemon.pid) if process.name != "rsync"]
    found = [process for process in found if process.name.startswith("python")]
    return any(process.kill() for process in found)


def everything(source: Slow, session: int) -> bool:
    """As when the machines lose power, but for what the disks had not written."""
    daemon = source.place.server.process
    assert daemon is not None
    victims = [*processes.below(daemon.pid), *processes.below(source.redis.process.pid)]
    daemon.kill()
    source.redis.process.kill()
    for process in [*processes.of_session(session), *victims]:
        process.kill()
    return True


VICTIMS: dict[str, Callable[[Slow, int], bool]] = {
    "BGSAVE's child": bgsave,
    "Redis during BGSAVE": whole_redis,
    "rsync, client": rsync_client,
    "rsync, server": rsync_server,
    "rsync daemon": rsync_daemon,
    "accept": accept,
    "everything at once": everything,
}


AT_ANY_TIME = (rsync_client, rsync_server, rsync_daemon, everything)


def test_what_a_backup_needs_killed(
    tmp_path: Path, draw: random.Random, size: Size, table: TellTable
) -> None:
    tries = size(1, 10)
    columns = ("tries", "kills", "backups that failed", *PROMISES)
    with scene(tmp_path) as place, place.shown(table, "killed", *columns):
        source = Slow(place)
        for name in draw.sample(list(VICTIMS), size(3, len(VICTIMS))):
            victim = VICTIMS[name]
            place.row(name)
            for _ in range(tries):
                # Those two have to be met while it saves.
                source.slow(10000 if victim in (bgsave, whole_redis) else 1500)
                later = draw.uniform(0, 2) if victim in AT_ANY_TIME else 0
                code, said, killed = source.met(functools.partial(victim, source), later)
                place.count("tries")
                place.count("kills", killed)
                place.count("backups that failed", code != 0)
                # Told in words, or not noticed: never anything else.
                assert code in ((-9, 0, 1) if victim is everything else (0, 1)), said
                if victim in (bgsave, whole_redis):
                    assert killed
                    assert code == 1, said
                if source.redis.process.poll() is not None:
                    source.restart()
                daemon = place.server.process
                assert daemon is not None
                if daemon.poll() is not None:
                    source.restart_rsync()
                wait_until(lambda: not source.saves(), "the end of a BGSAVE")
                source.survived()
                # The timer of the backup server, which finishes what was cut off.
                with place.promise(NEXT):
                    assert place.server.accept_process().code == 0
                source.slow(0)
                source.next_is_good()
                assert place.run("--config", place.server.config, "prune").code == 0
        # What a save of a killed server left, which may be as large as its data, goes with the
        # next backup of a server that was started after it.
        time.sleep(2.5)
        source.redis.process.kill()
        source.restart()
        source.next_is_good()
        with place.promise(LEFT):
            assert sorted(os.listdir(source.redis.data)) == [".redis-backup", "dump.rdb"]
        place.a_day_later()


def sandbox_servers(work: Path) -> list[Process]:
    """Probers and servers of drills below this directory."""
    found = []
    for process in processes.running():
        try:
            words = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        except OSError:
            continue
        if str(work).encode() in words and (b"sandbox" in words):
            found.append(process)
    return found


def test_drill_killed(tmp_path: Path, draw: random.Random, size: Size, table: TellTable) -> None:
    points = draw.sample(DRILL, len(DRILL))[: size(3, len(DRILL))]
    columns = ("tries", "kills", WRONG, *PROMISES)
    with scene(tmp_path) as place, place.shown(table, "killed", *columns):
        Source(place).next_is_good()
        path = drill_config(place.made)
        work = place.made.root / "work"
        command = ("--config", path, "--json", "drill")

        def next_is_good() -> float:
            started = time.monotonic()
            with place.promise(NEXT):
                done = place.run(*command)
                assert done.code == 0, done.text
            seconds = time.monotonic() - started
            with place.promise(NEXT):
                [outcome] = done.json["drills"]
                assert outcome["report"]["verdict"] == "passed"
            with place.promise(LEFT):
                assert sandbox_servers(work) == []
            place.settle()
            with place.promise(NEXT):
                drill_id = outcome["drill_id"]
                wait_until(lambda: catalogue.read(place.set_dir).has_drill(drill_id), "its line")
            place.settle()
            with place.promise(LEFT):
                assert sorted(os.listdir(work)) == [".lock", "fetch", "reports", "sandbox"]
                assert list((work / "fetch").iterdir()) == []
                for part in ("in", "out"):
                    assert list((work / "sandbox" / part).iterdir()) == []
            # The beginning of a report stays for an hour.
            for report in (work / "reports").iterdir():
                if os.listdir(report) != ["report.json"]:
                    os.utime(report, (1, 1))
            place.in_order()
            return seconds

        def killed(kill: Callable[[], bool]) -> None:
            place.count("tries")
            place.count("kills", kill())
            place.settle()
            place.no_bad_set()
            place.lock_is_free(work / ".lock")
            next_is_good()

        usual = next_is_good()
        place.row(f"drill at {len(points)} named points")
        for point in points:
            killed(functools.partial(drill_killed_at, place, point, *command))
        place.row("drill at random times")
        for _ in range(size(1, 30)):
            killed(lambda: drill_killed_after(place, draw.uniform(0, usual), *command))
        place.row("its sandboxed server")
        for _ in range(size(1, 15)):
            killed(lambda: server_killed(place, work, *command))
        next_is_good()
        with place.promise(LEFT):
            for report in (work / "reports").iterdir():
                assert os.listdir(report) == ["report.json"]
        place.a_day_later()


def drill_killed_at(place: Scene, point: str, *command: str | Path) -> bool:
    """Its sandboxed server may live on: the next drill ends it."""
    with place.start(*command, point=point) as process:
        assert process.wait(180) == -9, f"{point!r} was not reached: {process.communicate()}"
    return True


def drill_killed_after(place: Scene, seconds: float, *command: str | Path) -> bool:
    """Whether it still ran."""
    with place.start(*command) as process:
        time.sleep(seconds)
        ran = process.poll() is None
        process.kill()
    return ran


def server_killed(place: Scene, work: Path, *command: str | Path) -> bool:
    """The sandboxed server, or its prober: the drill has failed, unless all that it asks had been
    answered. Returns whether it was met before that.
    """
    met = False
    with place.start(*command) as process:
        while not met and process.poll() is None:
            met = any(found.kill() for found in sandbox_servers(work))
            time.sleep(0.002)
        out, err = process.communicate(timeout=180)
    with place.promise(WRONG):
        assert "Traceback" not in err
        [outcome] = json.loads(out)["drills"]
        passed = outcome["report"]["verdict"] == "passed"
        assert process.returncode == (0 if passed else 1), out + err
        assert met or passed
    return not passed
