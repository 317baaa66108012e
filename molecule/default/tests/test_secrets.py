"""No secret of the lab is in any process's arguments, in a journal, or in Ansible's most talkative
output.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import Play

# Looks at the arguments of every process of its host until told to stop. The secrets are those that
# the host's own files hold: on a command line of ours they would find themselves.
WATCH = r"""
import json, os, pathlib, sys, time
words = ["molecule-decoy"]
for path in pathlib.Path("/etc/redis-backup").glob("*.json"):
    config = json.loads(path.read_text())
    words += [config.get("redis", {}).get("password"), config.get("transport", {}).get("secret")]
secrets = pathlib.Path("/etc/redis-backup/rsyncd.secrets")
if secrets.exists():
    words += [line.partition(":")[2] for line in secrets.read_text().splitlines()]
words = [word.encode() for word in words if word]
seen = {}
while not os.path.exists("/run/watch.stop"):
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            arguments = pathlib.Path("/proc", entry, "cmdline").read_bytes()
        except OSError:
            continue
        for number, word in enumerate(words):
            if word in arguments or word in arguments.replace(b"\0", b" "):
                seen[number] = arguments[:80].replace(word, b"SECRET").decode("ascii", "replace")
    time.sleep(0.03)
print(json.dumps({"watched": len(words), "seen": seen}))
"""


@pytest.fixture
def watched(hosts: dict[str, Any]) -> Iterator[Callable[[], dict[str, Any]]]:
    """A watcher on every host; calling it ends them and gives what each of them saw."""
    for host in hosts.values():
        host.check_output(f"rm -f /run/watch.*; cat > /run/watch.py <<'END'{WATCH}END")
        host.check_output("(setsid python3 /run/watch.py > /run/watch.out 2>&1 &)")

    def stop() -> dict[str, Any]:
        found = {}
        for name, host in hosts.items():
            host.check_output("sh -c 'sleep 1; exit 0' molecule-decoy")
            host.check_output("touch /run/watch.stop")
            done = (
                "for i in $(seq 100); do test -s /run/watch.out && exit 0; sleep 0.1; done; exit 1"
            )
            host.check_output(done)
            found[name] = json.loads(host.check_output("cat /run/watch.out"))
        return found

    yield stop
    for host in hosts.values():
        host.run("touch /run/watch.stop; sleep 0.1; rm -f /run/watch.*")


@pytest.fixture
def secrets(hosts: dict[str, Any]) -> set[str]:
    """Every secret of the lab: Redis's password and the transport secret of each host."""
    found = set()
    for name, file in {
        "redis-1": "redis", "redis-2": "redis", "redis-3": "redis", "drill-1": "drill",
    }.items():  # fmt: skip
        config = json.loads(hosts[name].check_output(f"cat /etc/redis-backup/{file}.json"))
        found.add(config["transport"]["secret"])
        if "redis" in config:
            found.add(config["redis"]["password"])
    assert len(found) == 5
    return found


class LocalWatcher(threading.Thread):
    """The same on this machine, where ansible-playbook and its children run."""

    def __init__(self, secrets: set[str]) -> None:
        super().__init__(daemon=True)
        self.words = {"molecule-decoy", *secrets}
        self.seen: set[str] = set()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.2):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    arguments = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                except OSError:
                    continue
                self.seen |= {word for word in self.words if word in arguments}

    def stop(self) -> set[str]:
        subprocess.run(
            [sys.executable, "-c", "import time; time.sleep(1)", "molecule-decoy"], check=True
        )
        self.ended.set()
        self.join()
        return self.seen


def appears(secret: str, output: str) -> bool:
    """Whether a secret is in a text, plain or escaped as JSON, Python or YAML would write it."""
    spellings = {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], secret.replace("'", "''")}
    return any(spelling in output for spelling in spellings)


def test_secrets_stay_out_of_arguments_output_and_journals(
    play: Callable[..., Play],
    watched: Callable[[], dict[str, Any]],
    secrets: set[str],
    hosts: dict[str, Any],
) -> None:
    local = LocalWatcher(secrets)
    local.start()
    timeout = json.dumps({"redis_timeout": 30})
    runs = [
        # A change and its way back: files with secrets are written in front of the watchers.
        play("site.yml", "-vvv", "--diff", "--extra-vars", timeout),
        play("playbooks/deploy_redis.yml", "-vvv", "--diff"),
        play("playbooks/backup_now.yml", "-vvv"),
        play("playbooks/restore_drill.yml", "-vvv"),
        play("playbooks/show_status.yml", "-vvv"),
    ]
    assert local.stop() == {"molecule-decoy"}
    for name, watch in watched().items():
        # The decoy proves that the watcher sees; everything beyond it is a leak.
        assert set(watch["seen"]) == {"0"}, (name, watch)
        assert watch["watched"] >= 2, (name, watch)
    for run in runs:
        assert run.code == 0, run.output[-3000:]
        leaked = [secret for secret in secrets if appears(secret, run.output)]
        assert len(leaked) == 0, "a secret is in the output of ansible-playbook -vvv --diff"
    for name, host in hosts.items():
        # Modules write into it what they were called with.
        journal = host.check_output("journalctl --boot --output=cat --all")
        assert "Invoked with" in journal, name
        assert not any(appears(secret, journal) for secret in secrets), f"in the journal of {name}"
