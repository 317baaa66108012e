"""Asking the Redis servers of a lab, and running playbooks against it; shared by the scenarios."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.support import processes

PROJECT = Path(__file__).resolve().parents[2]

# The password is read on the host: on a command line every user could see it. Asked by redis-py,
# which is there for the backup tool, and not by redis-cli, whose answers are text for people.
ASK = """
import glob, json, sys, redis
with open(glob.glob("/etc/redis-backup/*.json")[0]) as file:
    server = json.load(file)["redis"]
client = redis.Redis(port=server["port"], username=server["username"], password=server["password"],
                     db=int(sys.argv[1]), decode_responses=True)
try:
    print(json.dumps(client.execute_command(*sys.argv[2:])))
except redis.ResponseError as error:
    print(json.dumps({"error": str(error)}))
"""


class Play(NamedTuple):
    """The outcome of one run of ansible-playbook."""

    code: int
    output: str
    changed: dict[str, int]  # by host

    @property
    def total_changed(self) -> int:
        return sum(self.changed.values())


def ask(host: Any, *words: str, db: int = 0) -> Any:
    """Send one command to the Redis server of a host; the answer as redis-py gives it."""
    command = " ".join(shlex.quote(word) for word in ["-c", ASK, str(db), *words])
    return json.loads(host.check_output("/usr/bin/python3 " + command))


def info(host: Any, section: str) -> dict[str, Any]:
    """One section of INFO."""
    answer: dict[str, Any] = ask(host, "INFO", section)
    return answer


def setting(host: Any, name: str) -> str:
    """One setting of the running server, from CONFIG GET."""
    answer: list[str] = ask(host, "CONFIG", "GET", name)
    return answer[1]


def accept(server: Any, code: int = 0) -> None:
    """Wait until a run of `accept` has begun and ended, with this exit code of systemctl: one
    that runs already may have begun before the upload that is meant.
    """
    for _ in range(2):
        server.run_expect([code], "systemctl start redis-backup-accept.service")


def signal_child(host: Any, number: str) -> None:
    """Send a signal to the child that saves for the Redis server of a host. Redis does not count a
    save that USR1 ends as a failed one.
    """
    main = host.check_output("systemctl show --property MainPID --value redis-server.service")
    host.check_output(f"pkill -{number} -P {main}")


def wait_for(condition: Callable[[], bool], timeout: float = 60) -> None:
    """Wait until a condition holds; fail with its name after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{condition.__name__} did not hold within {timeout} s"
        time.sleep(0.5)


def environment() -> dict[str, str]:
    """What ansible-playbook runs with: our own configuration, and no colours, which Molecule asks
    for by a variable that wins over NO_COLOR."""
    wanted = {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "NO_COLOR": "1"}
    return {**os.environ, **wanted, "ANSIBLE_FORCE_COLOR": "0"}


def play_against(inventory: str | Path, playbook: str, *arguments: str) -> Play:
    """Run a playbook of the project, as a user would who names this inventory."""
    done = subprocess.run(
        ["ansible-playbook", "-i", inventory, playbook, *arguments],
        cwd=PROJECT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return read_play(done.returncode, done.stdout)


def read_play(code: int, output: str) -> Play:
    """The outcome of a run from what it printed."""
    recap = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", output, re.MULTILINE)
    # Without a recap, every count of changes would be 0.
    assert recap or code != 0, output[-3000:]
    return Play(code, output, {host: int(count) for host, count in recap})


def master_of(hosts: dict[str, Any]) -> str:
    """Name of the one host that is master."""
    masters = [
        name
        for name, host in hosts.items()
        if name.startswith("redis-") and info(host, "replication")["role"] == "master"
    ]
    assert len(masters) == 1, masters
    return masters[0]


def end(pid: int) -> None:
    """Kill a process that leads a session and all that it has begun: Ansible's workers are in
    sessions of their own.
    """
    os.kill(pid, signal.SIGSTOP)  # it begins nothing more
    sessions = {pid, *(process.session for process in processes.below(pid))}
    while left := [process for process in processes.running() if process.session in sessions]:
        for process in left:
            process.kill()
        time.sleep(0.01)


def play_until(
    inventory: str | Path, playbook: str, task: str, *arguments: str, timeout: float = 1800
) -> None:
    """Run a playbook and kill it, with all its children, as soon as it has announced this task,
    which the project's own output does only of one that changes something.
    """
    run = subprocess.Popen(
        ["ansible-playbook", "-i", inventory, playbook, *arguments],
        cwd=PROJECT,
        env={**environment(), "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    killer = threading.Timer(timeout, end, (run.pid,))
    killer.start()
    output = []
    try:
        assert run.stdout is not None
        for line in run.stdout:
            output.append(line)
            if task in line:
                break
        else:
            raise AssertionError(f"{task!r} was never reached:\n" + "".join(output[-40:]))
    finally:
        killer.cancel()
        end(run.pid)
        run.wait()
