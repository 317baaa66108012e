"""A hand-made set is taken over by the runbook; then everything that can be wrong is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import Play, ask, info, master_of, setting, wait_for
from tests.support.runbooks import block, is_seen, playbook

REDIS = ("redis-1", "redis-2")
STATUS = "playbooks/show_status.yml"
CLI = "/usr/local/redis/bin/redis-cli"
TOLD = "/var/tmp/told"

CONF = """\
daemonize yes
bind 0.0.0.0
protected-mode no
save 900 1
save 300 10
save 60 10000
stop-writes-on-bgsave-error yes
rdbcompression yes
rdbchecksum yes
dbfilename dump.rdb
dir /mnt/redis_data
appendonly yes
logfile /usr/local/redis/redis.log
"""
SCRIPT = """\
#!/bin/bash
/usr/local/redis/bin/redis-cli save
cp /mnt/redis_data/dump.rdb /mnt/redis_data/dump_$(date +%Y%m%d%H%M%S).rdb
rsync -avz --password-file=/etc/rsync.passwd /mnt/redis_data/dump_*.rdb ruser@192.168.1.122::dbm
"""
# A program of the user's: it keeps what it was told, and then does what the test wants.
TELL = f"""\
#!/bin/sh
{{ echo "$@"; env | sort; echo --; cat; }} > {TOLD}
. {TOLD}.then
"""


def write(host: Any, path: str, text: str, mode: str = "0755") -> None:
    host.check_output(f"install -D -m {mode} /dev/stdin {path} <<'END'\n{text}END")


def succeeded(done: Play, changed: int | None = None) -> None:
    assert done.code == 0, done.output[-3000:]
    assert changed is None or done.total_changed == changed, done.output[-3000:]


@pytest.fixture(scope="module")
def by_hand(hosts: dict[str, Any], inventory: Path) -> None:
    """Two servers as people make them by hand; the second follows the first. No unit, no package,
    no password; the program is that of Debian, as if it had been built here."""
    text = (inventory / "generated.yml").read_text("utf-8")
    address = re.findall(r'redis_address: "(.+)"', text)[0]
    for name in REDIS:
        host = hosts[name]
        host.check_output(
            "apt-get update -qq && apt-get install -qq -y --no-install-recommends redis-tools"
            " && install -D /usr/bin/redis-check-rdb /usr/local/redis/bin/redis-server"
            f" && install -D /usr/bin/redis-cli {CLI} && mkdir -p /mnt/redis_data"
        )
        follows = f"slaveof {address} 6379\n" if name == "redis-2" else ""
        write(host, "/usr/local/redis/etc/redis.conf", CONF + follows, "0644")
        write(host, "/opt/sh/redis_bkup.sh", SCRIPT)
        host.check_output("echo '5 0 * * * /opt/sh/redis_bkup.sh >/dev/null 2>&1' | crontab -")
        host.check_output("/usr/local/redis/bin/redis-server /usr/local/redis/etc/redis.conf")
    fill = "for i = 1, 2000 do redis.call('SET', 'key:' .. i, string.rep('x', i % 300)) end"
    hosts["redis-1"].check_output(f'{CLI} EVAL "{fill}" 0')
    hosts["redis-1"].check_output(f"{CLI} -n 5 HSET cart a 1 b 2")
    wait_for(lambda: "master_link_status:up" in hosts["redis-2"].check_output(block(ROLES)))


ROLES = "taking-over-by-hand#roles"


@pytest.mark.usefixtures("by_hand")
def test_a_hand_made_set_is_left_alone(play: Callable[..., Play], hosts: dict[str, Any]) -> None:
    done = play("site.yml")
    assert done.code != 0
    assert done.total_changed == 0
    assert is_seen("taking-over-by-hand#not-ours", done.output), done.output[-3000:]
    for name in REDIS:
        assert "v=7.0" in hosts[name].check_output(block("taking-over-by-hand#version"))


@pytest.fixture(scope="module")
def taken_over(by_hand: None, play: Callable[..., Play], hosts: dict[str, Any]) -> Play:
    """By the runbook; its run of site.yml. The crontab of redis-2 is forgotten."""
    hosts["redis-1"].check_output(block("taking-over-by-hand#crontab"))
    take_over(hosts)
    planned = play(*playbook("taking-over-by-hand#plan"))
    succeeded(planned)
    return play(*playbook("taking-over-by-hand#run"))


def take_over(hosts: dict[str, Any]) -> None:
    for name in reversed(REDIS):
        hosts[name].run(block("taking-over-by-hand#stop"))
        # It answers as long as it saves.
        hosts[name].check_output("while pgrep -x redis-server > /dev/null; do sleep 0.1; done")
    for name in REDIS:
        hosts[name].check_output("rm -rf /root/redis_data.before")
        hosts[name].check_output(block("taking-over-by-hand#take-over"))


def test_it_is_taken_over_and_no_key_is_missing(taken_over: Play, hosts: dict[str, Any]) -> None:
    succeeded(taken_over)
    before = hosts["redis-1"].check_output(block("taking-over-by-hand#before"))
    for name in REDIS:
        for number, counts in info(hosts[name], "keyspace").items():
            words = f"{number}:keys={counts['keys']},expires={counts['expires']}"
            assert words in before.splitlines(), (name, words, before)
        assert ask(hosts[name], "GET", "key:299") == "x" * 299
        assert setting(hosts[name], "appendonly") == "yes"
    assert "db0:keys=2000,expires=0" in before
    assert master_of(hosts) == "redis-1"


def test_the_crontab_that_was_forgotten_is_named(
    taken_over: Play, play: Callable[..., Play], hosts: dict[str, Any]
) -> None:
    said = " ".join(taken_over.output.split())
    assert is_seen("taking-over-by-hand#forgotten", taken_over.output), taken_over.output[:3000]
    assert said.count("redis_bkup.sh") == 1
    status = play(STATUS)
    assert status.code != 0
    assert is_seen("taking-over-by-hand#forgotten", status.output.replace("; remove", ". remove"))
    hosts["redis-2"].check_output(block("taking-over-by-hand#crontab"))


def test_the_way_back_keeps_what_was_written_since(
    taken_over: Play, play: Callable[..., Play], hosts: dict[str, Any]
) -> None:
    ask(hosts["redis-1"], "SET", "since", "the takeover")
    for name in REDIS:
        hosts[name].check_output(block("taking-over-by-hand#way-back"))
        hosts[name].check_output(f"until {CLI} GET since | grep -q takeover; do sleep 0.1; done")
    take_over(hosts)
    succeeded(play("playbooks/deploy_redis.yml"))
    assert ask(hosts["redis-2"], "GET", "since") == "the takeover"


def test_a_run_with_nothing_to_do_prints_little(play: Callable[..., Play]) -> None:
    done = play("site.yml")
    succeeded(done, changed=0)
    assert len(done.output.splitlines()) < 40, done.output
    assert "TASK" not in done.output
    verbose = play("playbooks/deploy_backup.yml", "-v")
    assert "TASK [proven.redis.redis_backup : schedule | " in verbose.output


def test_when_all_is_well_the_status_says_so(play: Callable[..., Play]) -> None:
    for step in ("taking-over-by-hand#backup", "taking-over-by-hand#drill"):
        succeeded(play(*playbook(step)))
    done = play(*playbook("taking-over-by-hand#after"))
    succeeded(done, changed=0)
    assert re.search(r"^ +Nothing is wrong\.$", done.output, re.MULTILINE), done.output
    limited = play(STATUS, "--limit", "redis-1")
    succeeded(limited, changed=0)
    assert "Left out by --limit: redis-2, backup-1, drill-1." in limited.output
    assert "Nothing is wrong with what was looked at." in limited.output


# What is done to the set, what the status says of it, and how it is put right again.
WRONG = [
    (
        {"redis-2": ["REPLICAOF NO ONE", "CONFIG SET maxmemory 1gb"]},
        [
            "has 2 masters, redis-1 and redis-2",
            "redis-2: its settings are not as the inventory says (maxmemory: 1073741824 -> 0",
        ],
        {"redis-2": ["CONFIG SET maxmemory 0", "REPLICAOF {redis-1} 6379"]},
    ),
    (
        {"redis-1": ["REPLICAOF {redis-2} 6379"]},
        ["in a circle: redis-1 follows redis-2 follows redis-1"],
        {"redis-1": ["REPLICAOF NO ONE"]},
    ),
    (
        {"redis-2": ["REPLICAOF 192.0.2.1 6379"]},
        ["follows 192.0.2.1:6379, which is no server of its set"],
        {"redis-2": ["REPLICAOF {redis-1} 6379"]},
    ),
]


@pytest.mark.parametrize(("before", "words", "after"), WRONG, ids=["masters", "circle", "stranger"])
def test_what_is_wrong_with_redis_is_told(
    play: Callable[..., Play],
    hosts: dict[str, Any],
    before: dict[str, list[str]],
    words: list[str],
    after: dict[str, list[str]],
) -> None:
    _give(hosts, before)
    try:
        done = play(STATUS)
    finally:
        _give(hosts, after)
    wait_for(lambda: info(hosts["redis-2"], "replication").get("master_link_status") == "up")
    assert done.code != 0, done.output
    assert done.total_changed == 0
    for each in words:
        assert each in done.output, done.output


def _give(hosts: dict[str, Any], commands: dict[str, list[str]]) -> None:
    """Commands to the servers of hosts, `{host}` in them being its address."""
    places = {name: setting(hosts[name], "replica-announce-ip") for name in REDIS}
    for name, lines in commands.items():
        for line in lines:
            for host, address in places.items():
                line = line.replace("{" + host + "}", address)
            ask(hosts[name], *line.split())


MARKER = "/var/lib/proven-redis/redis-server.service.marker.json"
RESTORE = (
    '{"schema": 1, "kind": "restore", "run": "r", "phase": "feed", "began": "t", "deadline": "u",'
    ' "settings": {}}'
)
# On a host: what is done to it, what is told, how it is undone.
BROKEN = [
    (
        "redis-2",
        "systemctl stop cron",
        "redis-2: cron.service does not run",
        "systemctl start cron",
    ),
    (
        "redis-1",
        "mv /etc/cron.d/redis-backup-redis /root/",
        "redis-1: the schedule of its backup is not as the inventory says",
        "mv /root/redis-backup-redis /etc/cron.d/",
    ),
    (
        "redis-1",
        "systemctl disable -q redis-server",
        "redis-1: its server does not start with the",
        "systemctl enable -q redis-server",
    ),
    (
        "redis-2",
        "systemctl stop redis-server",
        "the server of redis-2 is down",
        "systemctl start redis-server",
    ),
    (
        "redis-1",
        f"install -D -m 0600 /dev/stdin {MARKER} <<'END'\n{RESTORE}\nEND",
        "redis-1: a restore is at work since t (run r, phase feed, to end by u)",
        "rm -r /var/lib/proven-redis",
    ),
    (
        "backup-1",
        "systemctl stop redis-backup-accept.timer",
        "backup-1: redis-backup-accept.timer does not run",
        "systemctl start redis-backup-accept.timer",
    ),
    (
        "backup-1",
        "systemctl stop redis-backup-rsyncd",
        "redis-backup-rsyncd.service does not run",
        "systemctl start redis-backup-rsyncd",
    ),
    (
        "backup-1",
        'sed -i.off \'s/"max_backup_age_seconds": [0-9]*/"max_backup_age_seconds": 60/\''
        " /etc/redis-backup/server.json; until find /var/lib/redis-backup/store/redis"
        " -name manifest.json -mmin +1 | grep -q .; do sleep 1; done",
        "backup of set redis: ",
        "mv /etc/redis-backup/server.json.off /etc/redis-backup/server.json",
    ),
    (
        "drill-1",
        "rm /etc/cron.d/redis-restore-drill",
        "drill-1: the schedule of its drill is not as the inventory says",
        "true",
    ),
]


def test_all_that_is_wrong_with_the_hosts_is_told_at_once(
    play: Callable[..., Play], hosts: dict[str, Any]
) -> None:
    """No finding hides another; before, none of them was there."""
    with ExitStack() as stack:
        for name, command, _, after in BROKEN:
            stack.callback(hosts[name].check_output, after)
            hosts[name].check_output(command)
        done = play(STATUS)
    assert done.code != 0, done.output
    assert done.total_changed == 0
    for *_, words, _ in BROKEN:
        assert words in done.output, done.output


def test_a_verdict_is_shown_where_its_report_cannot_be_written(
    play: Callable[..., Play], tmp_path: Path
) -> None:
    """Not even root writes below a file."""
    (tmp_path / "file").write_text("")
    reports = tmp_path / "file" / "reports"
    succeeded(play("playbooks/backup_now.yml"))
    done = play("playbooks/restore_drill.yml", "-e", f"redis_restore_drill_reports={reports}")
    assert done.code != 0
    assert "PASSED  redis/" in done.output, done.output
    said = " ".join(done.output.split())
    assert f"The copy of it in {reports} of this machine could not be written" in said


# --- a failure reaches a person --------------------------------------------------------------


def cron_command(host: Any, path: str) -> tuple[str, str]:
    """User and command of the one entry in a file of /etc/cron.d."""
    line = host.check_output(f"tail -n 1 {path}").split(maxsplit=6)
    return line[5], line[6]


def as_cron(host: Any, path: str) -> Any:
    """Run the entry as cron does."""
    user, command = cron_command(host, path)
    write(host, "/var/tmp/entry", f"{command}\n", "0644")
    return host.run(
        "cd /; env -i HOME=/ PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        f" runuser -u {user} -- /bin/sh /var/tmp/entry"
    )


def prepare(host: Any, then: str) -> None:
    """The program of the user, which ends like this."""
    write(host, "/usr/local/bin/tell", TELL)
    write(host, f"{TOLD}.then", f"{then}\n", "0644")
    host.check_output(f"rm -f {TOLD} && install -m 0666 /dev/null {TOLD}")


CRON = {"redis-2": "/etc/cron.d/redis-backup-redis", "drill-1": "/etc/cron.d/redis-restore-drill"}


@pytest.fixture(scope="module")
def no_rsync(hosts: dict[str, Any], play: Callable[..., Play]) -> Any:
    """Neither a backup nor a drill gets through, and at once: a secret that is wrong is not tried
    again.
    """
    succeeded(play("playbooks/deploy_backup.yml"))
    secrets = "/etc/redis-backup/rsyncd.secrets"
    hosts["backup-1"].check_output(f"sed -i.off 's/$/x/' {secrets}")
    yield
    hosts["backup-1"].check_output(f"mv {secrets}.off {secrets}")


@pytest.mark.usefixtures("no_rsync")
def test_a_failed_job_of_cron_reaches_a_person(hosts: dict[str, Any]) -> None:
    for name, path in CRON.items():
        host = hosts[name]
        prepare(host, "exit 0")
        assert as_cron(host, path).rc == 0  # of the logger: cron's own mail has its line
        told = host.check_output(f"cat {TOLD}")
        arguments, _, rest = told.partition("\n")
        environment, _, text = rest.partition("--\n")
        assert arguments == "--from the backup"
        job = "create" if name == "redis-2" else "drill"
        assert f"REDIS_BACKUP_HOST={name}\nREDIS_BACKUP_JOB={job}\n" in environment
        assert f"failed on {name}: exit status 1" in text
        assert "wrong rsync secret" in text, text


@pytest.mark.usefixtures("no_rsync")
@pytest.mark.parametrize(
    ("then", "words"),
    [
        ("echo no such chat >&2; exit 3", "ended with 3: no such chat"),
        ("setsid sleep 4242 & sleep 4242", "did not end within 60 s, and was killed"),
    ],
    ids=["fails", "hangs"],
)
def test_a_program_that_fails_or_hangs_is_in_the_journal(
    hosts: dict[str, Any], then: str, words: str
) -> None:
    host = hosts["redis-2"]
    prepare(host, then)
    mark = host.check_output("date +'%Y-%m-%d %H:%M:%S'")
    as_cron(host, CRON["redis-2"])
    said = host.check_output(f"journalctl -t redis-backup --since '{mark}' -o cat")
    assert words in said, said
    # The job's own end is what it was.
    assert "no backup of redis from redis-2: exit status 1" in said
    assert host.run("pgrep -f 'sleep 4242'").rc != 0


def test_a_failed_unit_of_the_backup_server_reaches_a_person(hosts: dict[str, Any]) -> None:
    server = hosts["backup-1"]
    prepare(server, "exit 0")
    assert server.service("redis-backup-check.timer").is_running
    server.check_output("rm -rf /var/lib/redis-backup-notify/*")
    sed = 'sed -i.off \'s/"max_backup_age_seconds": [0-9]*/"max_backup_age_seconds": 60/\''
    server.check_output(f"{sed} /etc/redis-backup/server.json")
    try:
        server.run("systemctl start redis-backup-check.service")
        wait_for(lambda: "FAILED: backup redis" in server.check_output(f"cat {TOLD}"))
        # It is told once, however often it fails until the next night.
        server.check_output(f"install -m 0666 /dev/null {TOLD}")
        server.run("systemctl start redis-backup-check.service")
        wait_for(lambda: server.run("systemctl is-active 'redis-backup-notify@*'").rc != 0)
        assert server.check_output(f"cat {TOLD}") == ""
    finally:
        server.check_output("mv /etc/redis-backup/server.json.off /etc/redis-backup/server.json")
