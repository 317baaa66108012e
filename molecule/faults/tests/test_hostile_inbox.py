"""A Redis host that was taken over, with its real secret, against the real daemon and `accept`.

What it does is done with a plain rsync client on redis-2. Whatever it tries: what was accepted
stays as it is, the store grows by nothing, the other hosts go on, and so does redis-2 once it
behaves.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import subprocess
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import Play, accept
from tests.support.runbooks import block, is_seen, playbook

ROOT = "/var/lib/redis-backup"
MIB = 1024 * 1024
OWN = "{root}/inbox-redis-2/"

# Runs on the Redis host. Reads what to do from its argument: files to make below /tmp/hostile, then
# calls of rsync. Prints a list of [exit code, what was printed].
CLIENT = """
import base64, json, os, pathlib, subprocess, sys, zlib
with open("/etc/redis-backup/redis.json") as file:
    access = json.load(file)["transport"]
work = pathlib.Path("/tmp/hostile")
work.mkdir(exist_ok=True)
os.chdir(work)
job = json.loads(zlib.decompress(base64.b64decode(sys.argv[1])))
for name, content in job["files"].items():
    path = work / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(content))
if job["prepare"]:
    subprocess.run(["sh", "-ec", job["prepare"]], check=True)
secret = os.environ.get("SECRET") or access["secret"]
done = []
for call in job["calls"]:
    root = "rsync://%s@%s:%d" % (access["user"], access["server"], access["port"])
    as_other = root.replace("redis-2@", "redis-1@")
    words = [word.replace("{root}", root).replace("{redis-1}", as_other) for word in call]
    ran = subprocess.run(["timeout", "600", "rsync", "--timeout=20", "--contimeout=10", *words],
                         env={"PATH": os.environ["PATH"], "RSYNC_PASSWORD": secret, "LC_ALL": "C"},
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    done.append([ran.returncode, ran.stdout.decode("utf-8", "replace")[-1500:]])
print(json.dumps(done))
"""

# A file of every kind that could be turned against its receiver.
ZOO = """
mkdir -p zoo && cd zoo
echo payload > plain
ln -sf /etc/passwd symlink
ln -sf ../../../store escape
ln -f plain hardlink
[ -e fifo ] || mkfifo fifo
cp plain setuid && chmod 6777 setuid
truncate -s 400M sparse
"""


class Taken:
    """The host that was taken over."""

    def __init__(self, hosts: dict[str, Any]) -> None:
        self.host = hosts["redis-2"]
        self.server = hosts["backup-1"]

    def send(
        self,
        *calls: list[str],
        files: dict[str, bytes] | None = None,
        prepare: str = "",
        secret: str = "",
    ) -> list[tuple[int, str]]:
        """Make files and call rsync; exit codes and output."""
        job = {
            "files": {
                name: base64.b64encode(content).decode() for name, content in (files or {}).items()
            },
            "prepare": prepare,
            "calls": calls,
        }
        packed = base64.b64encode(zlib.compress(json.dumps(job).encode())).decode()
        command = f"/usr/bin/python3 -c {shlex.quote(CLIENT)} {packed}"
        if secret:
            command = f"SECRET={shlex.quote(secret)} {command}"
        done = self.host.run(command)
        assert done.rc == 0, done.stderr[-2000:]
        return [(code, text) for code, text in json.loads(done.stdout)]

    def upload(self, uploads: dict[str, dict[str, bytes]]) -> list[tuple[int, str]]:
        """Send uploads as `create` does: the payload first, the manifest last."""
        files, calls = {}, []
        for identity, content in uploads.items():
            for name in sorted(content):  # dump.rdb.zst < manifest.json
                files[f"{identity}/{name}"] = content[name]
                calls.append(["--relative", "--times", f"{identity}/{name}", OWN])
        return self.send(*calls, files=files)

    def create(self) -> Any:
        """What cron does on this host."""
        return self.host.run("runuser -u redis -- redis-backup create --now")


def tree(server: Any, *below: str) -> dict[str, str]:
    """Every file below directories of the backup server, with its owner, mode, inode, time of last
    change and content."""
    paths = " ".join(f"{ROOT}/{name}" for name in below)
    listed = server.check_output(
        f"find {paths} -type f ! -name '.?*' -printf '%p\\t%u:%g:%m:%n:%i:%C@\\n'"
    )
    summed = server.check_output(f"find {paths} -type f ! -name '.?*' -exec sha256sum {{}} +")
    sums = {line.split(maxsplit=1)[1]: line.split()[0] for line in summed.splitlines()}
    rows = (line.split("\t") for line in listed.splitlines())
    return {path: f"{about} {sums[path]}" for path, about in rows}


def accepted(server: Any) -> list[str]:
    """The ids of the catalogue, in its order."""
    text = server.check_output(f"cat {ROOT}/store/redis/catalogue.jsonl")
    lines = [json.loads(line) for line in text.splitlines()]
    return [line["id"] for line in lines if line["event"] == "accepted"]


def used(server: Any, path: str) -> int:
    """Bytes in use on the file system of a path."""
    return int(server.check_output(f"df --output=used --block-size=1 {path}").split()[1])


def new_id(seconds: float = 0, host: str = "redis-2") -> str:
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y%m%dT%H%M%SZ}-{host}"


@pytest.fixture(scope="module")
def taken(hosts: dict[str, Any]) -> Taken:
    return Taken(hosts)


@pytest.fixture(scope="module")
def backup(taken: Taken) -> str:
    """One backup that redis-2 made while it was still ours."""
    done = taken.create()
    assert done.rc == 0, done.stderr
    mine = [identity for identity in accepted(taken.server) if identity.endswith("-redis-2")]
    return mine[-1]


@pytest.fixture(scope="module")
def stored(taken: Taken, backup: str) -> dict[str, bytes]:
    """The files of that backup, of which the host still has copies."""
    return {
        name: base64.b64decode(
            taken.server.check_output(f"base64 {ROOT}/store/redis/{backup}/{name}")
        )
        for name in ("dump.rdb.zst", "manifest.json")
    }


@pytest.fixture
def unchanged(taken: Taken, backup: str) -> Iterator[None]:
    """What was accepted is afterwards what it was, to the inode, and there is no more of it."""
    before = tree(taken.server, "store")
    yield
    accept(taken.server)
    assert tree(taken.server, "store") == before


READING = {
    "list its own inbox": [OWN],
    "read its own inbox": ["-r", OWN, "loot/"],
    "list a neighbour's inbox": ["{root}/inbox-redis-1/"],
    "list as the neighbour": ["{redis-1}/inbox-redis-1/"],
    "list the drill host's inbox": ["{root}/inbox-drill-1/"],
    "read the store": ["-r", "{root}/store/", "loot/"],
    "write into a neighbour's inbox": ["zoo/plain", "{root}/inbox-redis-1/"],
    "write as the neighbour": ["zoo/plain", "{redis-1}/inbox-redis-1/"],
    "write into the store": ["zoo/plain", "{root}/store/redis/"],
    "write a receipt": ["zoo/plain", "{root}/receipts-redis/"],
    "read above its inbox": ["-r", f"{OWN}../", "loot/"],
    "read the receipts' parent": ["-r", "{root}/receipts-redis/../../store/", "loot/"],
    "read the host's own files": ["{root}/receipts-redis//etc/passwd", "loot/"],
    "take the list of files from the server": ["--files-from=:/etc/passwd", "zoo", OWN],
}


def test_it_reads_nothing_and_reaches_no_other_module(taken: Taken, unchanged: None) -> None:
    done = taken.send(*READING.values(), prepare=f"rm -rf loot; mkdir loot; ({ZOO})")
    for (what, _), (code, said) in zip(READING.items(), done, strict=True):
        assert code != 0, f"{what}: {said}"
        assert re.search(r"\dZ-redis-\d|root:x:|catalogue", said) is None, f"{what}: {said}"
    assert taken.host.check_output("find /tmp/hostile/loot -type f") == ""
    # The names of modules are not told either.
    [(_, said)] = taken.send(["{root}/"])
    assert said.strip() == ""


REFUSED_OPTIONS = [
    "--delete",
    "--delete-before",
    "--delete-excluded",
    "--inplace",
    "--append",
    "--append-verify",
    "--links",
    "--copy-links",
    "--hard-links",
    "--devices",
    "--specials",
    "-D",
    "--perms",
    "--owner",
    "--group",
    "--acls",
    "--xattrs",
    "--numeric-ids",
    "--sparse",
    "--remove-source-files",
    "--backup",
    "--backup-dir=../../store",
    "--partial",
    "--partial-dir=../x",
    "--delay-updates",
    "--temp-dir=/tmp",
    "--temp-dir=../redis-1",
    "--compare-dest=../../store",
    "--copy-dest=../../store/redis",
    "--link-dest=../../store/redis",
    "--checksum",
    "--compress",
    "--existing",
    "--ignore-existing",
    "--update",
    "--mkpath",
    "--super",
    "--fake-super",
    "-M--fake-super",
    "-M--log-file=/var/lib/redis-backup/store/x",
    "-M--write-devices",
    "-M--copy-devices",
    "-M--config=/etc/x",
    "-M--daemon",
    "--preallocate",
    "--chmod=u+s",
    "--max-alloc=0",
    "--stop-after=1",
    "--iconv=utf8,latin1",
    "--force",
    "--prune-empty-dirs",
    "--size-only",
    "--ignore-times",
    "--fuzzy",
    "--suffix=x",
    "--munge-links",
]
# Not the server's business: such a client only changes what it sends.
CLIENTS_OWN = {"--copy-links", "--fake-super", "--chmod=u+s", "--stop-after=1", "--munge-links"}


def test_every_option_but_those_of_an_upload_is_refused(taken: Taken, unchanged: None) -> None:
    calls = [["-r", option, "zoo/plain", f"{OWN}{new_id()}/"] for option in REFUSED_OPTIONS]
    done = taken.send(*calls)
    passed = [option for option, (code, _) in zip(REFUSED_OPTIONS, done, strict=True) if code == 0]
    assert set(passed) <= CLIENTS_OWN, passed
    assert taken.server.check_output(f"find {ROOT} -perm /7000") == ""


def test_it_cannot_leave_its_inbox(taken: Taken, unchanged: None) -> None:
    deep = "/".join(["d"] * 60)
    calls = [
        ["zoo/plain", f"{OWN}../../store/redis/x"],
        ["zoo/plain", f"{OWN}../redis-1/x"],
        ["zoo/plain", "{root}/inbox-redis-2//etc/cron.d/x"],
        ["--relative", "zoo/../zoo/./../zoo/plain", f"{OWN}../../"],
        ["-r", "zoo/", f"{OWN}{new_id()}/"],
        ["-r", "--relative", "deep", OWN],
        ["-r", "names/", OWN],
    ]
    prepare = (
        f"mkdir -p deep/{deep} names/lost+found names/.incoming names/drills;"
        " printf x > 'names/a\tb'; printf x > names/-rf; printf x > names/catalogue.jsonl;"
        ' printf x > "names/$(printf "\\033[31mred\\nline")"'
    )
    taken.send(*calls, prepare=prepare)
    accept(taken.server)
    outside = taken.server.check_output(
        f"find /etc {ROOT}/inbox/redis-1 {ROOT}/inbox/drill-1 {ROOT}/receipts /tmp -newer"
        f" {ROOT}/store/.lock -type f -name x"
    )
    assert outside == ""
    # It has not shut itself out.
    assert taken.server.file(f"{ROOT}/inbox/redis-2").mode == 0o750
    [(code, said)] = taken.send(["zoo/plain", f"{OWN}{new_id()}/"])
    assert code == 0, said
    # Links, pipes and devices were not even sent; nothing but files and directories can be there.
    kinds = taken.server.check_output(f"find {ROOT}/inbox ! -type f ! -type d")
    assert kinds == ""
    # All of it is gone but what may still become an upload.
    left = taken.server.check_output(f"ls -A {ROOT}/inbox/redis-2").split()
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-redis-2", name) for name in left), left
    taken.server.check_output(f"find {ROOT}/inbox/redis-2 -mindepth 1 -delete")


def changed(manifest: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(manifest), **changes}).encode()


def with_payload(manifest: bytes, payload: bytes, **changes: Any) -> dict[str, bytes]:
    """An upload whose stored size and sha256 are right."""
    data = json.loads(manifest)
    data["files"][0].update(
        stored_size=len(payload), stored_sha256=hashlib.sha256(payload).hexdigest(), **changes
    )
    return {"dump.rdb.zst": payload, "manifest.json": json.dumps(data).encode()}


def test_what_it_makes_up_is_rejected(
    taken: Taken, backup: str, stored: dict[str, bytes], unchanged: None
) -> None:
    payload, manifest = stored["dump.rdb.zst"], stored["manifest.json"]
    bomb = base64.b64decode(
        taken.server.check_output("head -c 2G /dev/zero | zstd -q | base64 -w 0")
    )
    ids = {name: new_id(-number) for number, name in enumerate("abcdefgh")}
    old, other = new_id(-3 * 86400), new_id(host="redis-1")

    def about(identity: str, **changes: Any) -> dict[str, bytes]:
        return {**stored, "manifest.json": changed(manifest, id=identity, **changes)}

    def packed(identity: str, content: bytes, **changes: Any) -> dict[str, bytes]:
        return with_payload(changed(manifest, id=identity), content, **changes)

    made_up = {
        backup: (about(backup, tool_version="x"), "accepted before"),
        old: (about(old), "more than a day off"),
        other: (about(other, host="redis-1"), "not one of redis-2"),
        ids["a"]: (about(ids["a"], set="other"), "is about other"),
        ids["b"]: (about(ids["b"], host="redis-1"), "host"),
        ids["c"]: (about(ids["c"], fork_time=1_600_000_000), "more than a day off"),
        ids["d"]: (packed(ids["d"], bomb), "more than the announced"),
        ids["e"]: (packed(ids["e"], bomb, size=2**31), "dump.rdb.zst"),
        ids["f"]: (packed(ids["f"], bomb, size=2**40), "no dump is so well compressed"),
        ids["g"]: (packed(ids["g"], payload[:-1]), "dump.rdb.zst"),
        ids["h"]: ({**stored, "manifest.json": b"[" * 200_000}, "manifest.json"),
    }
    since = taken.server.check_output("date +%s")
    sent = taken.upload({identity: content for identity, (content, _) in made_up.items()})
    assert [code for code, _ in sent] == [0] * len(sent)
    accept(taken.server)
    journal = taken.server.check_output(
        f"journalctl -u redis-backup-accept --since @{since} -o cat"
    )
    for identity, (_, reason) in made_up.items():
        assert re.search(f"rejected: redis-2/{identity}: .*{reason}", journal), (identity, journal)
        if identity in ids.values():
            receipt = f"{ROOT}/receipts/redis/{identity}.json"
            assert json.loads(taken.server.check_output(f"cat {receipt}"))["status"] == "rejected"
    assert is_seen("host-taken-over#rejected", journal)
    # The neighbour, in whose name one was made up, is told nothing of it.
    assert not taken.server.file(f"{ROOT}/receipts/redis/{other}.json").exists
    assert taken.server.check_output(f"ls -A {ROOT}/inbox/redis-2") == ""


def test_a_full_inbox_is_full_for_its_host_alone(
    hosts: dict[str, Any], taken: Taken, backup: str, play: Callable[..., Play]
) -> None:
    server, inbox = taken.server, f"{ROOT}/inbox/redis-2"
    size = int(server.check_output(f"df --output=size --block-size=1 {inbox}").split()[1])
    files = int(server.check_output(f"df --output=itotal {inbox}").split()[1])
    # Everything of the backup server but its inboxes, which are other file systems.
    weight = f"du --summarize --one-file-system --block-size=1 {ROOT} | cut -f 1"
    before, store = int(server.check_output(weight)), tree(server, "store")

    # Far more names than it may have, then far more bytes, in uploads that are never finished.
    names, room = new_id(-2), new_id(-1)
    prepare = (
        f"mkdir -p many/{names} large/{room};"
        f" python3 -c \"for n in range({files + 100}): open(f'many/{names}/{{n}}', 'w')\";"
        f" head -c {size * 2 // 3} /dev/zero > large/{room}/dump.rdb.zst;"
        f" cp large/{room}/dump.rdb.zst large/{room}/more"
    )
    done = taken.send(["-r", "many/", OWN], prepare=prepare)
    assert done[0][0] != 0
    server.check_output(f"rm -r {inbox}/{names}")
    done = taken.send(["-r", "large/", OWN], prepare="rm -r many")
    assert done[0][0] != 0
    assert "No space left on device" in done[0][1]
    # So that not even a small backup has room.
    server.check_output(f"runuser -u redis-backup -- sh -c 'cat /dev/zero > {inbox}/{room}/x' || :")

    assert int(server.check_output(weight)) - before < size // 10
    assert tree(server, "store") == store
    refused = taken.create()
    assert refused.rc == 1
    assert is_seen("inbox-full#full", refused.stderr), refused.stderr
    listed = server.check_output(block("inbox-full#look"))
    assert is_seen("inbox-full#list", listed), listed
    neighbour = hosts["redis-1"].run("runuser -u redis -- redis-backup create --now")
    assert neighbour.rc == 0, neighbour.stderr

    # A larger one, and nothing that lies in it is lost.
    held = tree(server, "inbox/redis-2")
    larger = play(*playbook("inbox-full#larger"), "-e", f"redis_backup_inbox_size={size + 8 * MIB}")
    assert larger.code == 0, larger.output[-3000:]
    assert used(server, inbox) >= size
    assert tree(server, "inbox/redis-2") == held
    grown = taken.create()
    assert grown.rc == 0, grown.stderr
    # And a smaller one only when it would not be.
    smaller = play(*playbook("inbox-full#larger"), "-e", f"redis_backup_inbox_size={16 * MIB}")
    assert smaller.code != 0
    assert is_seen("inbox-full#too-small", smaller.output), smaller.output[-3000:]
    assert tree(server, "inbox/redis-2") == held
    server.check_output(block("inbox-full#remove").replace("20260101T000500Z-redis-2", room))
    again = play(*playbook("inbox-full#larger"))
    assert again.code == 0, again.output[-3000:]
    assert sum(again.changed.values()) == 1
    size_again = int(server.check_output(f"df --output=size --block-size=1 {inbox}").split()[1])
    assert size_again == size


def test_a_day_has_an_end(taken: Taken, stored: dict[str, bytes]) -> None:
    """Uploads that are all in order, more of them than a day may have."""
    server, config = taken.server, "/etc/redis-backup/server.json"
    settings = json.loads(server.check_output(f"cat {config}"))
    receipts = server.check_output(f"ls {ROOT}/receipts/redis").split()
    day = len([name for name in receipts if name.endswith("-redis-2.json")]) + 5

    def send(numbers: range) -> None:
        uploads = {}
        for number in numbers:
            identity = new_id(-100 - number)
            manifest = changed(stored["manifest.json"], id=identity)
            uploads[identity] = {**stored, "manifest.json": manifest}
        taken.upload(uploads)
        # It fails when it leaves an inbox alone: monitoring is to see that.
        server.run("systemctl start redis-backup-accept.service")
        server.run("systemctl start redis-backup-accept.service")

    server.check_output(f"cp -p {config} {config}.kept")
    try:
        assert settings["uploads_per_day"] == 100
        edit = f's/"uploads_per_day": 100/"uploads_per_day": {day}/'
        server.check_output(f"sed -i '{edit}' {config}")
        before = len(accepted(server))
        send(range(8))
        assert len(accepted(server)) == before + 5
        told = taken.create()
        assert told.rc == 1
        assert is_seen("host-taken-over#day", told.stderr), told.stderr
        send(range(8, 2 * day))
        assert len(accepted(server)) == before + 5
        journal = server.check_output("journalctl -u redis-backup-accept --since -3min -o cat")
        assert is_seen("host-taken-over#too-many", journal), journal[-3000:]
    finally:
        server.check_output(f"mv {config}.kept {config}")
        server.check_output(f"find {ROOT}/inbox/redis-2 -mindepth 1 -delete")


def test_it_is_shut_out_and_let_in_again(
    taken: Taken, play: Callable[..., Play], inventory: Path
) -> None:
    server = taken.server
    before = tree(server, "store")
    secret = json.loads(taken.host.check_output("cat /etc/redis-backup/redis.json"))["transport"][
        "secret"
    ]
    server.check_output(block("host-taken-over#shut-out"))
    [(code, said)] = taken.send(["zoo/plain", OWN])
    assert code != 0
    assert "Unknown module" in said
    listed = server.check_output(block("host-taken-over#what-it-sent"))
    assert f"accepted: redis/{accepted(server)[0]}" in listed or "redis-2" in listed
    server.check_output(block("host-taken-over#verify"))

    forget = block("host-taken-over#forget-secret").replace("inventories/prod", str(inventory))
    kept = inventory / ".secrets" / "redis-2.rsync"
    assert kept.read_text().split()[0] == secret
    subprocess.run(["sh", "-ec", forget], check=True)
    again = play(*playbook("host-taken-over#new-secret"))
    assert again.code == 0, again.output[-3000:]
    [(code, said)] = taken.send(["zoo/plain", OWN], secret=secret)
    assert code != 0
    assert "auth failed" in said
    assert tree(server, "store") == before


def test_it_goes_on_as_before(hosts: dict[str, Any], taken: Taken) -> None:
    for unit in ("redis-backup-rsyncd.service", "redis-backup-accept.timer"):
        assert taken.server.service(unit).is_running
    done = taken.create()
    assert done.rc == 0, done.stderr
    taken.server.run_expect([0], "runuser -u redis-backup -- redis-backup verify --all")
    taken.host.check_output("rm -rf /tmp/hostile")
