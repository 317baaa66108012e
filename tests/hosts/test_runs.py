"""Runs beside something else: a failover by hand at every stage, a second run, a host that is off,
a master that freezes. A client writes all along with WAIT 1, and no run of ours may lose a write.

`make test` plays some of the moments, SOAK=1 all; each is played without our run too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.failover import Held, Servers, Writer
from tests.support.live import Play, play_against, play_until, wait_for
from tests.support.runbooks import is_seen

DEPLOY = "playbooks/deploy_redis.yml"
RESTART = "playbooks/rolling_restart.yml"
THREE = ["redis-1", "redis-2", "redis-3"]
FOUR = [*THREE, "redis-4"]
ALL = os.environ.get("SOAK") == "1"
in_full = pytest.mark.skipif(not ALL, reason="played with SOAK=1")
# One setting that is changed live, and one that only restarts change.
CHANGE = ("-e", "redis_slowlog_max_len={0}", "-e", "redis_databases={0}")


class Moment(NamedTuple):
    """A point of a run, and what happens there."""

    name: str
    task: str  # before which the run is held
    nth: int = 1  # which of the tasks of that name
    locked: str = (
        ""  # the host whose lock is held, so that the module itself waits: old, new, other
    )
    quick: bool = False  # played by `make test` too
    event: str = "failover"


STATE = "state | Read the state of this instance"
MOMENTS = [
    Moment("before the decision", STATE),
    Moment("after the first look", "compare | Compare the files"),
    Moment("before the trial boot", "compare | Try the configuration"),
    Moment("before the claim", "claim | Claim every instance"),
    Moment("between claim and second look", STATE, 2),
    Moment("after the second look", "configure | Configure the server", quick=True),
    Moment("before the old master's file", "configure | Configure the server", locked="old"),
    Moment("before the new master's file", "configure | Configure the server", locked="new"),
    Moment("before the other replica's file", "configure | Configure the server", locked="other"),
    Moment("before the first restart", "roll | Restart one server", quick=True),
    Moment("before the second restart", "roll | Restart one server", locked="second"),
    Moment("before the master's restart", "roll | Restart one server", locked="old"),
    Moment("before the last look", STATE, 3),
    Moment("there and back between the looks", "claim | Claim every", event="twice"),
    Moment("the master freezes and thaws", "configure | Configure the server", event="freeze"),
    Moment("the master freezes before a restart", "roll | Restart one", event="freeze"),
    Moment("a replica reboots", "configure | Configure the server", event="reboot"),
    Moment("the master's server is killed", "configure | Configure the server", event="kill"),
]


class Played(NamedTuple):
    """What became of a moment."""

    acknowledged: int
    lost: int
    code: str
    end: str


class Outcomes(dict[str, tuple[Played | None, Played]]):
    """By moment: without our run, where that can be played, and beside it."""

    def table(self) -> str:
        lines = [
            "| Moment | Acknowledged | Lost | Lost without our run | Exit | End state |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {name} | {ours.acknowledged} | {ours.lost} |"
            f" {f'{alone.lost} of {alone.acknowledged}' if alone else 'not played'}"
            f" | {ours.code} | {ours.end} |"
            for name, (alone, ours) in self.items()
        ]
        return "\n".join(lines)


@pytest.fixture(scope="module")
def servers(inventory: Path, hosts: dict[str, Any]) -> Servers:
    return Servers(inventory, hosts)


@pytest.fixture(scope="module")
def without_4(inventory: Path) -> Path:
    """The inventory without its line for redis-4."""
    fewer = inventory.parent / "fewer"
    fewer.mkdir(exist_ok=True)
    for name in ("group_vars", "generated.yml"):
        if not (fewer / name).exists():
            (fewer / name).symlink_to(inventory / name)
    lines = (inventory / "hosts.yml").read_text("utf-8").splitlines()
    kept = [line for line in lines if line.strip() != "redis-4:"]
    assert len(lines) - len(kept) == 1
    (fewer / "hosts.yml").write_text("\n".join(kept) + "\n", "utf-8")
    return fewer


@pytest.fixture(scope="module")
def deploy(without_4: Path) -> Callable[..., Play]:
    def run(*arguments: str) -> Play:
        return play_against(without_4, DEPLOY, *arguments)

    return run


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Outcomes]:
    found = Outcomes()
    yield found
    print(f"\n{found.table()}")


def settings(number: int) -> list[str]:
    """Arguments that change something on every host, by a restart of each."""
    return [word.format(number) for word in CHANGE]


def good(done: Play, changed: int | None = None) -> None:
    assert done.code == 0, done.output[-4000:]
    assert changed is None or done.total_changed == changed, done.output[-4000:]


def test_the_set_is_deployed(deploy: Callable[..., Play], servers: Servers) -> None:
    good(deploy())
    servers.settle(THREE)
    good(deploy(), changed=0)


class Beside:
    """What happens at a moment, without a run and beside one."""

    def __init__(self, servers: Servers, writer: Writer, event: str) -> None:
        self.servers = servers
        self.writer = writer
        self.event = event
        (self.old,) = servers.masters_of(THREE)
        self.new, self.other = [name for name in THREE if name != self.old]

    def happen(self) -> None:
        servers, move = self.servers, self.servers.move_by_hand
        if self.event == "failover":
            move(self.writer, THREE, self.new)
        elif self.event == "twice":
            move(self.writer, THREE, self.new)
            servers.settle(THREE)
            move(self.writer, THREE, self.old)
        elif self.event == "freeze":
            host = servers.hosts[self.old]
            host.check_output("systemctl kill --signal=STOP redis-server")
            time.sleep(1)
            move(self.writer, THREE, self.new)
            host.check_output("systemctl kill --signal=CONT redis-server")
            # Whoever moved the master makes the old one a replica as soon as it answers.
            wait_for(lambda: bool(servers.replication(self.old)), 30)
            servers.follow(self.old, self.new)
        elif self.event == "reboot":
            # What a boot does as far as a run can see: other processes, and an empty /run.
            servers.hosts[self.other].check_output(
                "rm -rf /run/proven-redis; systemctl kill --signal=KILL redis-server"
            )
        elif self.event == "kill":
            servers.hosts[self.old].check_output("systemctl kill --signal=KILL redis-server")

    def host(self, which: str) -> str:
        if which == "second":  # replicas in the order of the inventory, then the master
            return self.other
        return {"old": self.old, "new": self.new, "other": self.other}[which]


def played(writer: Writer, servers: Servers, code: str) -> Played:
    return Played(len(writer.acknowledged), writer.lost(), code, servers.end_state(THREE))


def played_alone(servers: Servers, event: str) -> Played:
    """What the event loses by itself, without a run of ours beside it."""
    (master,) = servers.masters_of(THREE)
    with Writer(servers, master, f"alone:{event}:{time.time_ns()}") as writer:
        beside = Beside(servers, writer, event)
        time.sleep(1)
        beside.happen()
        time.sleep(1)
        servers.settle(THREE)
    return played(writer, servers, "")


def stage(task: str) -> str:
    """A moment as the table names it: the stage and the task, without the bar between them."""
    return f"before {task.replace(' | ', ': ')}"


@pytest.mark.parametrize(
    "moment",
    [moment for moment in MOMENTS if ALL or moment.quick],
    ids=lambda moment: moment.name.replace(" ", "-"),
)
def test_a_run_beside_something_else_loses_nothing(
    deploy: Callable[..., Play],
    without_4: Path,
    servers: Servers,
    outcomes: Outcomes,
    moment: Moment,
    request: pytest.FixtureRequest,
) -> None:
    number = 100 + 2 * MOMENTS.index(moment)
    alone = played_alone(servers, moment.event)
    (master,) = servers.masters_of(THREE)
    with Writer(servers, master, f"beside:{moment.name}") as writer:
        beside = Beside(servers, writer, moment.event)
        run = Held(without_4, DEPLOY, moment.task, *settings(number), nth=moment.nth)
        try:
            run.reached()
            if moment.locked:
                with servers.locked(beside.host(moment.locked)):
                    run.go()
                    time.sleep(15)
                    beside.happen()
            else:
                beside.happen()
        finally:
            done = run.end()
        time.sleep(1)
        servers.settle(THREE)
    ours = played(writer, servers, str(done.code))
    outcomes[moment.name] = alone, ours
    print(f"\n{outcomes.table()}")

    assert ours.acknowledged > 100
    assert (alone.lost, ours.lost) == (0, 0)
    expected = master if moment.event in ("twice", "reboot", "kill") else beside.new
    assert ours.end == f"master {expected}", done.output[-6000:]
    # A run that ends well has done what the inventory says.
    again = deploy(*settings(number))
    good(again)
    if done.code == 0 and moment.event != "failover":
        assert again.total_changed == 0, done.output[-3000:] + again.output[-6000:]
    good(deploy(*settings(number)), changed=0)


@pytest.mark.parametrize(
    ("task", "changed", "number"),
    [
        # Both looked, and then the second changes everything before the first does.
        ("claim | Claim every instance", 0, 40),
        # The first has claimed the set, and is overtaken: it changes nothing more.
        pytest.param("configure | Configure the server", None, 60, marks=in_full),
    ],
)
def test_of_two_runs_one_stops(
    deploy: Callable[..., Play],
    without_4: Path,
    servers: Servers,
    outcomes: Outcomes,
    task: str,
    changed: int | None,
    number: int,
) -> None:
    (master,) = servers.masters_of(THREE)
    with Writer(servers, master, f"two runs:{task}") as writer:
        first = Held(without_4, DEPLOY, task, *settings(number))
        first.reached()
        good(deploy(*settings(number + 10)))
        done = first.end()
        servers.settle(THREE)
    outcomes[f"two runs at once, {stage(task)}"] = None, played(writer, servers, str(done.code))
    assert done.code != 0
    assert changed is None or done.total_changed == changed, done.output[-3000:]
    assert is_seen("another-run#another-run", done.output)
    assert writer.lost() == 0
    good(deploy(*settings(number + 10)), changed=0)


@in_full
def test_a_run_right_after_a_killed_one(
    deploy: Callable[..., Play], without_4: Path, servers: Servers, outcomes: Outcomes
) -> None:
    """The killed run's module is still restarting a server."""
    (master,) = servers.masters_of(THREE)
    with Writer(servers, master, "killed") as writer:
        play_until(without_4, DEPLOY, "roll | Restart one server", *settings(80))
        time.sleep(2)
        done = deploy(*settings(80))
        servers.settle(THREE)
    outcomes["a run right after a killed one"] = None, played(writer, servers, str(done.code))
    good(done)
    assert writer.lost() == 0
    good(deploy(*settings(80)), changed=0)


def off(host: Any, seconds: int) -> None:
    """The machine is off for so long: nothing answers, and it comes back by itself."""
    host.check_output(
        f"systemd-run --quiet --collect --on-active={seconds}s"
        " sh -c 'systemctl start redis-server; systemctl start ssh'"
    )
    host.run(
        "systemd-run --quiet --collect sh -c"
        " 'sleep 1; systemctl stop redis-server ssh; pkill -KILL sshd'"
    )
    time.sleep(4)


def test_a_machine_that_is_off_stops_only_what_needs_it(
    deploy: Callable[..., Play], servers: Servers, hosts: dict[str, Any]
) -> None:
    """The master's, after a failover by hand: the survivors' files name the living master."""
    (old,) = servers.masters_of(THREE)
    new, other = [name for name in THREE if name != old]
    off(hosts[old], 150 if ALL else 100)
    assert not servers.replication(old)
    servers.follow(new, None)
    servers.follow(other, new)
    limited = deploy("--limit", f"!{old}", *settings(90))
    good(limited)
    assert f"Left out, as they cannot be reached: {old}." in " ".join(limited.output.split())
    for name in (new, other):
        file = hosts[name].file("/etc/redis/redis.conf").content_string
        named = [line for line in file.splitlines() if line.startswith("replicaof")]
        assert named == ([] if name == new else [f"replicaof {servers.addresses[new]} 6379"])
    whole = deploy(*settings(91))
    assert whole.code != 0
    assert is_seen("another-run#left-out", whole.output), whole.output[-3000:]
    assert f"{old} was left out" in whole.output
    assert whole.changed[new] > 0, whole.output[-3000:]
    assert whole.changed[other] > 0, whole.output[-3000:]

    def the_machine_is_back() -> bool:
        return bool(servers.replication(old))

    wait_for(the_machine_is_back, 240)
    # It came back as a master beside the living one, which no run may choose between.
    refused = deploy(*settings(91))
    assert refused.code != 0
    assert refused.total_changed == 0
    assert "are all masters with keys or replicas" in " ".join(refused.output.split())
    servers.follow(old, new)
    servers.settle(THREE)
    good(deploy(*settings(91)))
    good(deploy(*settings(91)), changed=0)


@in_full
@pytest.mark.parametrize("task", ["configure | Configure the server", "start | Start the replicas"])
def test_a_failover_during_a_join(
    inventory: Path, servers: Servers, hosts: dict[str, Any], outcomes: Outcomes, task: str
) -> None:
    host = hosts["redis-4"]
    host.run("systemctl stop redis-server; rm -rf /mnt/redis_data /etc/redis /run/proven-redis")
    host.run("apt-get purge --yes redis-server redis-tools")
    alone = played_alone(servers, "failover")
    (master,) = servers.masters_of(THREE)
    with Writer(servers, master, f"join:{task}") as writer:
        beside = Beside(servers, writer, "failover")
        run = Held(inventory, DEPLOY, task)
        try:
            run.reached()
            beside.happen()
        finally:
            done = run.end()
        servers.settle(THREE)
    outcomes[f"a join, {stage(task)}"] = alone, played(writer, servers, str(done.code))
    assert done.code != 0
    assert (alone.lost, writer.lost()) == (0, 0)
    assert servers.end_state(THREE) == f"master {beside.new}"
    good(play_against(inventory, DEPLOY))
    servers.settle(FOUR)
    good(play_against(inventory, DEPLOY), changed=0)


@in_full
@pytest.mark.parametrize(
    ("playbook", "task"),
    [
        (RESTART, "roll | Restart one server"),
        # The replica that is to go has become the master.
        ("playbooks/remove_replica.yml", "remove | Stop the server"),
    ],
)
def test_a_restart_or_a_removal_beside_a_failover(
    deploy: Callable[..., Play],
    without_4: Path,
    servers: Servers,
    outcomes: Outcomes,
    playbook: str,
    task: str,
) -> None:
    alone = played_alone(servers, "failover")
    good(deploy())
    (master,) = servers.masters_of(THREE)
    with Writer(servers, master, playbook) as writer:
        beside = Beside(servers, writer, "failover")
        removed = [] if playbook == RESTART else ["-e", f"redis_removed_host={beside.new}"]
        run = Held(without_4, playbook, task, *removed)
        try:
            run.reached()
            beside.happen()
        finally:
            done = run.end()
        servers.settle(THREE)
    outcomes[f"{playbook}, {stage(task)}"] = alone, played(writer, servers, str(done.code))
    assert done.code != 0
    assert is_seen("another-run#failover", done.output)
    assert (alone.lost, writer.lost()) == (0, 0)
    assert servers.end_state(THREE) == f"master {beside.new}"
