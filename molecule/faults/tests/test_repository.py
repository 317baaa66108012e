"""What happens to backups that are there: late, damaged, too many, too large for the drill host;
and a clock that is wrong."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import runbooks
from tests.support.live import Play, accept, ask, wait_for

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
    # Tests before this one have filled Redis and emptied it, which is what such marks are for.
    shown = json.loads(tool(server, "--json status").stdout)
    for backup in shown["sets"][0]["shrunk"][-1:]:
        tool(server, f"acknowledge {backup['id']}")
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
# {0} is the newest backup's directory, {1} that of the one before.
DAMAGE: dict[str, tuple[str, str]] = {
    "flipped": (f"python3 -c {shlex.quote(FLIP)} {{0}}/{PAYLOAD}", PAYLOAD),
    "missing": (f"rm {{0}}/{PAYLOAD}", PAYLOAD),
    "truncated": (f"truncate -s -9 {{0}}/{PAYLOAD}", PAYLOAD),
    "swapped": (
        f"mv {{0}}/{PAYLOAD} {{0}}/x && mv {{1}}/{PAYLOAD} {{0}}/ && mv {{0}}/x {{1}}/{PAYLOAD}",
        PAYLOAD,
    ),
    "manifest": (f"sed -Ei 's/(\"keys\": ?)[0-9]+/\\11/' {{0}}/{MANIFEST}", MANIFEST),
    "gone": ("rm -r {0}", ""),
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
    # A good reading withdraws what was written down. The last drill stays a failed one.
    server.check_output(runbooks.block("damaged-backup#verify"))
    checked = server.run(runbooks.block("clock#look"))
    assert "ok: scrub redis: " in checked.stdout, checked.stdout


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_named(
    hosts: dict[str, Any], server: Any, pair: list[str], damage: str
) -> None:
    command, file = DAMAGE[damage]
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
    assert checked.rc == 1
    assert name in checked.stdout
    assert runbooks.is_seen("damaged-backup#check", checked.stdout), checked.stdout

    drilled = hosts["drill-1"].run(f"runuser -u redis-backup -- redis-backup drill redis/{pair[0]}")
    assert drilled.rc == 1
    assert name in drilled.stdout, drilled


def test_rot_is_found_by_the_timer_and_costs_no_good_backup(server: Any, pair: list[str]) -> None:
    """One byte of the newest: what counts is the one before, and retention keeps it."""
    command, _ = DAMAGE["flipped"]
    server.check_output(command.format(*(f"{STORE}/{backup_id}" for backup_id in pair)))
    assert server.service("redis-backup-scrub.timer").is_running
    server.run_expect([1], "systemctl start redis-backup-scrub.service")
    checked = server.run(runbooks.block("clock#look"))
    assert checked.rc == 1
    assert f"{pair[0]} is damaged" in checked.stdout, checked.stdout
    assert f"ok: backup redis: {pair[1]}: accepted" in checked.stdout, checked.stdout
    planned = json.loads(server.check_output(runbooks.block("retention#dry-run")))
    reasons = {
        item["id"]: item["reasons"] for plan in planned["sets"] for item in plan["decisions"]
    }
    assert "newest verified" in reasons[pair[1]]
    assert "newest verified" not in reasons[pair[0]]


def test_a_damaged_catalogue_is_written_again(server: Any) -> None:
    path = f"{STORE}/catalogue.jsonl"
    before = server.check_output(f"sha256sum {path}")
    server.check_output(f"sed -i '2s/Z-/Y-/' {path}")
    for command in ("clock#look", "lost-catalogue#verify"):
        done = server.run(runbooks.block(command))
        assert done.rc == 1
        assert runbooks.is_seen("lost-catalogue#damaged", done.stdout), done
    server.check_output(runbooks.block("lost-catalogue#reindex"))
    assert server.check_output(f"sha256sum {path}") == before
    server.check_output(runbooks.block("lost-catalogue#verify"))


def test_a_store_that_is_not_mounted_is_not_taken_for_a_new_one(
    hosts: dict[str, Any], server: Any, play: Callable[..., Play]
) -> None:
    store = STORE.rpartition("/")[0]
    before = server.check_output(f"find {STORE} -type f | sort")
    server.check_output(f"mount -t tmpfs -o mode=0750,uid=redis-backup none {store}")
    try:
        # Nobody confirms it; it waits in the inbox.
        waiting = hosts["redis-2"].run("timeout 20 runuser -u redis -- redis-backup create --now")
        assert waiting.rc != 0
        server.run_expect([1], "systemctl start redis-backup-accept.service")
        checked = server.run(runbooks.block("clock#look"))
        assert checked.rc == 1
        assert runbooks.is_seen("another-repository#gone", checked.stdout), checked.stdout
        assert server.check_output(f"find {store} -name '*.json'") == ""
    finally:
        server.check_output(f"umount --lazy {store}")
    # What was uploaded meanwhile is taken as soon as the store is there again.
    accept(server)
    after = set(server.check_output(f"find {STORE} -type f").splitlines())
    assert set(before.splitlines()) < after
    # And on a machine that does not know its repository, a person says that this is it.
    known = "/etc/redis-backup/repository/repository.json"
    server.check_output(f"rm {known}")
    checked = server.run(runbooks.block("clock#look"))
    assert checked.rc == 1
    assert runbooks.is_seen("another-repository#another", checked.stdout), checked.stdout
    server.check_output(runbooks.block("another-repository#adopt"))
    deployed = play(*runbooks.playbook("another-repository#deploy"))
    assert deployed.code == 0, deployed.output[-3000:]
    assert deployed.total_changed == 0, deployed.output[-3000:]


def test_a_backup_can_be_kept_and_taken_out(server: Any) -> None:
    newest = present(server)[-1]

    def typed(block: str) -> str:
        words = runbooks.block(block)
        words = words.replace("20260302T000501Z-redis-2", newest)
        return str(server.check_output(words))

    typed("retention#keep")
    planned = json.loads(server.check_output(runbooks.block("retention#dry-run")))
    reasons = [
        item["reasons"]
        for plan in planned["sets"]
        for item in plan["decisions"]
        if item["id"] == newest
    ]
    assert any(reason.startswith("kept until") for reason in reasons[0])
    typed("retention#fetch")
    walked = json.loads(server.check_output(f"redis-backup --json inspect /var/tmp/{newest}.rdb"))
    show = f"runuser -u redis-backup -- redis-backup --json show {newest}"
    assert walked["databases"] == json.loads(server.check_output(show))["databases"]
    server.check_output(f"rm /var/tmp/{newest}.rdb")


def test_an_emptied_redis_is_no_success(
    hosts: dict[str, Any], server: Any, play: Callable[..., Play]
) -> None:
    """FLUSHALL, and the night after: the backup of before stays the newest until somebody says that
    this was meant.
    """
    before = present(server)[-1]
    ask(hosts["redis-1"], "FLUSHALL")
    wait_for(lambda: ask(hosts["redis-2"], "DBSIZE") == 0)
    made = hosts["redis-2"].run("runuser -u redis -- redis-backup create --now")
    assert made.rc == 0, made.stderr
    emptied = present(server)[-1]
    assert emptied != before
    checked = server.run(runbooks.block("clock#look"))
    assert checked.rc == 1
    assert runbooks.is_seen("much-smaller-backup#check", checked.stdout), checked.stdout
    assert f"ok: backup redis: {before}: accepted" in checked.stdout, checked.stdout
    acknowledge = runbooks.block("much-smaller-backup#acknowledge")
    server.check_output(acknowledge.replace("20260302T000501Z-redis-2", emptied))
    drilled = play(*runbooks.playbook("backup-is-late#drill"))
    assert drilled.code == 0, drilled.output[-3000:]
    checked = server.run(runbooks.block("clock#look"))
    assert checked.rc == 0, checked.stdout
    assert f"ok: backup redis: {emptied}: accepted" in checked.stdout, checked.stdout


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
