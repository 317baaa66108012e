"""What happens to backups that are there: late, damaged, too many, too large for the drill host;
and a clock that is wrong."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import runbooks
from tests.support.live import Play, accept

STORE = "/var/lib/redis-backup/store/redis"
DRILL = "/var/lib/redis-backup/drill"
DAY = 24 * 3600  # seconds

# The tool at another time. The clock of the machine is that of every host, and not ours to set.
SHIFTED = """
import runpy, sys, time
real, seconds = time.time, int(sys.argv[1])
time.time = lambda: real() + seconds
sys.argv = ["redis-backup", *sys.argv[2:]]
runpy.run_path("/usr/local/bin/redis-backup", run_name="__main__")
"""


@pytest.fixture(scope="module")
def server(hosts: dict[str, Any]) -> Any:
    return hosts["backup-1"]


def tool(server: Any, words: str, shift: int = 0) -> Any:
    """Run the tool on the backup server, as if it were so many seconds later."""
    return server.run("runuser -u redis-backup -- python3 -c %s %s " + words, SHIFTED, str(shift))


def events(server: Any, kind: str) -> list[str]:
    """The ids in the catalogue with this event, oldest first."""
    lines = server.check_output(f"cat {STORE}/catalogue.jsonl").splitlines()
    return [entry["id"] for entry in map(json.loads, lines) if entry["event"] == kind]


def present(server: Any) -> list[str]:
    """The ids of the backups that are there, oldest first."""
    gone = events(server, "pruned")
    return [backup_id for backup_id in events(server, "accepted") if backup_id not in gone]


@pytest.fixture(scope="module", autouse=True)
def proven(hosts: dict[str, Any], server: Any, play: Callable[..., Play]) -> None:
    """At least four backups, the newest of them proven."""
    while len(present(server)) < 3:
        hosts["redis-2"].check_output("runuser -u redis -- redis-backup create --now")
    made = play(*runbooks.playbook("backup-is-late#backup"))
    assert made.code == 0, made.output[-3000:]
    drilled = play(*runbooks.playbook("backup-is-late#drill"))
    assert drilled.code == 0, drilled.output[-3000:]
    accept(server)


# --- late, and the clock ---


def test_monitoring_goes_by_exit_codes(hosts: dict[str, Any], server: Any) -> None:
    assert server.run(runbooks.block("clock#look")).rc == 0
    late = tool(server, "check", shift=30 * 3600)
    assert late.rc == 1
    assert runbooks.is_seen("backup-is-late#late", late.stdout), late.stdout
    assert runbooks.is_seen("backup-is-late#drill-late", late.stdout), late.stdout
    assert tool(server, "--config /etc/redis-backup/none.json check").rc == 2
    assert hosts["redis-1"].run(runbooks.block("backup-is-late#log")).rc == 0


def test_a_wrong_clock_is_told_and_deletes_nothing(server: Any) -> None:
    before = present(server)
    back = tool(server, "check", shift=-DAY)
    assert back.rc == 1
    assert runbooks.is_seen("clock#check", back.stdout), back.stdout
    for shift, page in ((-DAY, "clock#prune-back"), (366 * DAY, "clock#prune-ahead")):
        done = tool(server, "prune", shift)
        assert runbooks.is_seen(page, done.stdout + done.stderr), done
    assert present(server) == before


# --- retention ---


@pytest.fixture
def strict_policy(server: Any) -> Iterator[None]:
    """Only the last two are kept."""
    path = "/etc/redis-backup/server.json"
    change = (
        "import json, sys; path = sys.argv[1]; data = json.load(open(path)); "
        "data['retention'] = dict(keep_last=2, keep_daily=0, keep_weekly=0, keep_monthly=0,"
        " keep_minimum=1); "
        "open(path, 'r+').truncate(0); json.dump(data, open(path, 'r+'))"
    )
    server.check_output("cp -a %s /root/server.json && python3 -c %s %s", path, change, path)
    yield
    server.check_output("cat /root/server.json >%s && rm /root/server.json", path)


def test_retention_says_why_and_deletes_as_it_said(server: Any, strict_policy: None) -> None:
    before = present(server)
    planned = server.run(runbooks.block("retention#dry-run"))
    assert planned.rc == 0, planned
    assert present(server) == before
    [plan] = json.loads(planned.stdout)["sets"]
    assert {item["id"] for item in plan["decisions"]} == set(before)
    assert all(item["reasons"] for item in plan["decisions"])
    # A backup that a drill disproved, if there is one, takes nobody's place.
    kept = [item["id"] for item in plan["decisions"] if item["keep"]]
    assert kept[-2:] == before[-2:]
    assert plan["deleted"]
    assert plan["deleted"] == [backup_id for backup_id in before if backup_id not in kept]

    server.check_output(runbooks.block("retention#prune"))
    assert present(server) == kept
    assert events(server, "pruned")[-len(plan["deleted"]) :] == plan["deleted"]
    there = server.check_output(f"ls {STORE}").split()
    assert sorted(name for name in there if name.startswith("20")) == sorted(kept)
    said = server.check_output(runbooks.block("retention#log"))
    assert all(backup_id in said for backup_id in plan["deleted"])
    assert server.run(runbooks.block("damaged-backup#verify")).rc == 0
    assert server.run(runbooks.block("clock#look")).rc == 0


# --- damage ---

PAYLOAD, MANIFEST = "dump.rdb.zst", "manifest.json"
FLIP = (
    "import sys; f = open(sys.argv[1], 'r+b'); f.seek(0, 2); at = f.tell() // 2; f.seek(at); "
    "b = f.read(1)[0] ^ 1; f.seek(at); f.write(bytes([b]))"
)
# {0} is the newest backup's directory, {1} that of the one before. The last item is whether
# `check` sees it too, which looks at the newest backup's manifest and the size of its payload.
DAMAGE: dict[str, tuple[str, str, bool | None]] = {
    "flipped": (f"python3 -c {shlex.quote(FLIP)} {{0}}/{PAYLOAD}", PAYLOAD, False),
    "missing": (f"rm {{0}}/{PAYLOAD}", PAYLOAD, True),
    "truncated": (f"truncate -s -9 {{0}}/{PAYLOAD}", PAYLOAD, True),
    "swapped": (
        f"mv {{0}}/{PAYLOAD} {{0}}/x && mv {{1}}/{PAYLOAD} {{0}}/ && mv {{0}}/x {{1}}/{PAYLOAD}",
        PAYLOAD,
        None,
    ),
    "manifest": (f"sed -Ei 's/(\"keys\": ?)[0-9]+/\\11/' {{0}}/{MANIFEST}", MANIFEST, True),
    "gone": ("rm -r {0}", "", True),
}
QUOTES = {
    "flipped": "damaged-backup#flipped",
    "missing": "damaged-backup#missing",
    "truncated": "damaged-backup#flipped",
    "swapped": "damaged-backup#flipped",
    "manifest": "damaged-backup#manifest",
    "gone": "damaged-backup#gone",
}


@pytest.fixture
def pair(server: Any) -> Iterator[list[str]]:
    """The newest backup and the one before; put back as they were afterwards."""
    ids = present(server)[:-3:-1]
    server.check_output("mkdir -m 0700 /root/kept")
    for backup_id in ids:
        server.check_output(f"cp -a {STORE}/{backup_id} /root/kept/")
    yield ids
    for backup_id in ids:
        server.check_output(f"rm -rf {STORE}/{backup_id}")
        server.check_output(f"cp -a /root/kept/{backup_id} {STORE}/")
    server.check_output("rm -r /root/kept")


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_named(
    hosts: dict[str, Any], server: Any, pair: list[str], damage: str
) -> None:
    command, file, seen_by_check = DAMAGE[damage]
    server.check_output(command.format(*(f"{STORE}/{backup_id}" for backup_id in pair)))
    name = f"redis/{pair[0]}/{file}".rstrip("/")

    verified = server.run(runbooks.block("damaged-backup#verify"))
    said = verified.stdout + verified.stderr
    assert verified.rc == 1
    assert name in said
    assert runbooks.is_seen(QUOTES[damage], said), said
    if damage == "swapped":
        assert f"redis/{pair[1]}/{file}" in said

    checked = server.run(runbooks.block("clock#look"))
    if seen_by_check is not None:  # two payloads may be of one size
        assert (checked.rc, name in checked.stdout) == ((1, True) if seen_by_check else (0, False))

    drilled = hosts["drill-1"].run(f"runuser -u redis-backup -- redis-backup drill redis/{pair[0]}")
    assert drilled.rc == 1
    assert name in drilled.stdout, drilled


# --- a drill host that is too small ---


@pytest.fixture
def small_work(hosts: dict[str, Any]) -> Iterator[None]:
    host = hosts["drill-1"]
    host.check_output(
        f"mount -t tmpfs -o size=32m,mode=0700,uid=redis-backup,gid=redis-backup none {DRILL}"
        f" && install -d -o redis-backup -g redis-backup -m 0700 {DRILL}/sandbox"
        f" {DRILL}/sandbox/in {DRILL}/sandbox/out"
    )
    yield
    host.check_output(f"umount --lazy {DRILL}")


def test_a_drill_without_room_is_a_failed_drill(hosts: dict[str, Any], small_work: None) -> None:
    done = hosts["drill-1"].run("runuser -u redis-backup -- redis-backup drill")
    assert done.rc == 1
    assert runbooks.is_seen("drill-failed#disk", done.stdout), done
    left = hosts["drill-1"].check_output(f"find {DRILL}/fetch {DRILL}/sandbox -type f")
    assert left == ""


@pytest.fixture
def little_memory(hosts: dict[str, Any]) -> Iterator[None]:
    host = hosts["drill-1"]
    unit = "/etc/systemd/system/redis-backup-sandbox.service"
    lower = r"s/(MemoryMax=|--memory-max )[^ ]*/\148M/"
    host.check_output("cp -a %s /root/unit && sed -Ei %s %s", unit, lower, unit)
    host.check_output("systemctl daemon-reload")
    yield
    host.check_output("cat /root/unit >%s && rm /root/unit && systemctl daemon-reload", unit)


def test_a_drill_without_memory_is_a_failed_drill(
    hosts: dict[str, Any], play: Callable[..., Play], little_memory: None
) -> None:
    drilled = play(*runbooks.playbook("drill-failed#drill"))
    assert drilled.code != 0
    assert runbooks.is_seen("drill-failed#memory", drilled.output), drilled.output[-3000:]
    unit = hosts["drill-1"].run("systemctl is-active redis-backup-sandbox.service")
    assert unit.stdout.strip() in ("inactive", "failed"), "its server is still there"
    left = hosts["drill-1"].check_output(f"find {DRILL}/fetch {DRILL}/sandbox -type f")
    assert left == ""
