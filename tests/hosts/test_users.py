"""Passwords change under running clients, users get rules; nobody is refused who should not be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import Play, play_against, play_until
from tests.support.runbooks import is_seen, playbook

REDIS = ("redis-1", "redis-2")
DEPLOY = "playbooks/deploy_redis.yml"
# Whatever a redis.conf, a shell, YAML, Jinja or an aclfile could stumble over.
ODD = " 'one' \"two\" # > < ! ~* ${HOME} {{ seven * 7 }} {% x %} \\ \\x41 é \t end"
FIRST, SECOND, THIRD = (f"{word}{ODD}" for word in ("first", "second", "third"))
SHOP, SHOP_NEW = f"shop{ODD}", f"another shop{ODD}"
REPLICATION, REPLICATION_NEW = f"replication{ODD}", f"another replication{ODD}"
BACKUP = f"backup{ODD}"

# Logins and commands come by standard input: on a command line every user could see them. Redis-py,
# which is on each host, tells the kinds of refusal apart.
ASK = """
import json, sys, redis
asked = json.load(sys.stdin)
client = redis.Redis(username=asked["login"][0], password=asked["login"][1], decode_responses=True)
try:
    print(json.dumps(client.execute_command(*asked["words"])))
except redis.RedisError as error:
    print(json.dumps(type(error).__name__ + ": " + str(error)))
"""

# Clients that connect anew all the time, and one that stays, until told to stop.
CLIENTS = """
import json, os, pathlib, time, redis
first = json.loads(pathlib.Path("/run/clients.json").read_text())[0]
def connect(login):
    return redis.Redis(username=login[0], password=login[1], single_connection_client=True)
stays = connect(first)
began, done, failed = stays.client_id(), 0, []
while not os.path.exists("/run/clients.stop"):
    for login in json.loads(pathlib.Path("/run/clients.json").read_text()):
        try:
            client = connect(login)
            client.incr("clients")
            client.close()
            stays.incr("clients")
            done += 1
        except redis.RedisError as error:
            failed.append(str(error))
    time.sleep(0.05)
print(json.dumps({"done": done, "failed": failed, "stayed": stays.client_id() == began}))
"""


class Inventory:
    """The inventory of the moment: what a person would have edited in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory.parent / "secrets.yml"

    def says(self, **variables: Any) -> None:
        """Write it; `!unsafe` is how a password with braces is written."""

        def lines(value: Any, indent: str) -> str:
            if isinstance(value, str):
                return f" !unsafe {json.dumps(value)}\n"
            if isinstance(value, dict):
                return "\n" + "".join(
                    f"{indent}{key}:{lines(item, indent + '  ')}" for key, item in value.items()
                )
            if isinstance(value, list):
                return "\n" + "".join(f"{indent}-{lines(item, indent + '  ')}" for item in value)
            return f" {json.dumps(value)}\n"

        self.file.touch(mode=0o600)
        self.file.write_text("---" + lines(variables, ""), encoding="utf-8")

    def play(self, name: str, *arguments: str) -> Play:
        return play_against(self.directory, name, *arguments, "-e", f"@{self.file}")

    def killed(self, name: str, task: str) -> None:
        play_until(self.directory, name, task, "-e", f"@{self.file}")


@pytest.fixture(scope="module")
def said(inventory: Path) -> Inventory:
    return Inventory(inventory)


def ask(host: Any, login: tuple[str | None, str | None], *words: str) -> Any:
    asked = json.dumps({"login": login, "words": words})
    host.check_output(f"umask 077; cat > /run/ask.json <<'END'\n{asked}\nEND")
    host.check_output(f"cat > /run/ask.py <<'END'{ASK}END")
    return json.loads(host.check_output("python3 -I /run/ask.py < /run/ask.json"))


def refused(host: Any, login: tuple[str | None, str | None], *words: str) -> bool:
    answer = ask(host, login, *words)
    kinds = ("NoPermissionError:", "AuthenticationError:", "ResponseError: WRONGPASS")
    return isinstance(answer, str) and answer.startswith(kinds)


def succeeded(done: Play, changed: int | None = None) -> None:
    assert done.code == 0, done.output[-3000:]
    assert changed is None or done.total_changed == changed, done.output[-3000:]


def hidden(done: Play) -> None:
    """No password is in what Ansible said."""
    words = (FIRST, SECOND, THIRD, SHOP, SHOP_NEW, REPLICATION, REPLICATION_NEW, BACKUP)
    for word in words:
        for spelling in (word, json.dumps(word)[1:-1], word.replace("'", "''")):
            assert spelling not in done.output


def linked(host: Any, login: tuple[str | None, str | None]) -> bool:
    return bool(ask(host, login, "INFO", "replication")["master_link_status"] == "up")


def full_syncs(host: Any, login: tuple[str | None, str | None]) -> int:
    return int(ask(host, login, "INFO", "stats")["sync_full"])


@contextmanager
def clients(host: Any, *logins: tuple[str | None, str]) -> Iterator[Callable[..., None]]:
    """Clients that connect with these logins, or others from the moment when they are given."""

    def use(*now: tuple[str | None, str]) -> None:
        text = json.dumps(now)
        host.check_output(
            f"umask 077; cat > /run/clients.new <<'END'\n{text}\nEND\n"
            "mv /run/clients.new /run/clients.json"
        )

    use(*logins)
    host.check_output(f"rm -f /run/clients.stop; cat > /run/clients.py <<'END'{CLIENTS}END")
    host.check_output("(setsid python3 -I /run/clients.py > /run/clients.out 2>&1 &)")
    try:
        yield use
    finally:
        host.check_output("touch /run/clients.stop")
        wait = "for i in $(seq 100); do test -s /run/clients.out && exit 0; sleep 0.1; done; exit 1"
        host.run(wait)
        output = host.check_output("cat /run/clients.out")
    result = json.loads(output)
    assert result["failed"] == []
    assert result["stayed"], "a connection was dropped"
    assert result["done"] > 20


def users(**changes: dict[str, Any]) -> list[dict[str, Any]]:
    """redis_acl_users, with changes by name."""
    listed: dict[str, dict[str, Any]] = {
        "shop": {"name": "shop", "preset": "application", "password": SHOP},
        "replica": {"name": "replica", "preset": "replication", "password": REPLICATION},
        "saver": {"name": "saver", "preset": "backup", "password": BACKUP},
        "reports": {
            "name": "reports", "password": BACKUP,
            "rules": ["%R~report:*", "+@read", "+@connection"],
        },
    }  # fmt: skip
    return [{**user, **changes.get(name, {})} for name, user in listed.items()]


# --- requirepass -----------------------------------------------------------------------------


def test_a_password_of_odd_characters_is_deployed(said: Inventory, hosts: dict[str, Any]) -> None:
    said.says(redis_requirepass=FIRST)
    succeeded(said.play("site.yml"))
    again = said.play(DEPLOY, "--diff", "-vvv")
    succeeded(again, changed=0)
    hidden(again)
    assert ask(hosts["redis-1"], (None, FIRST), "PING") is True
    assert refused(hosts["redis-1"], (None, None), "PING")
    assert linked(hosts["redis-2"], (None, FIRST))


def test_another_password_is_refused_unless_the_previous_one_is_given(
    said: Inventory, hosts: dict[str, Any]
) -> None:
    said.says(redis_requirepass=SECOND)
    stopped = said.play(DEPLOY)
    assert stopped.code != 0
    assert stopped.total_changed == 0
    assert is_seen("passwords#refused", stopped.output), stopped.output[-3000:]
    said.says(redis_requirepass=SECOND, redis_previous_password=FIRST)
    limited = said.play(DEPLOY, "--limit", "redis-2")
    assert limited.code != 0
    assert is_seen("passwords#limited", limited.output), limited.output[-3000:]
    assert linked(hosts["redis-2"], (None, FIRST))


def test_a_password_changes_and_no_client_fails(said: Inventory, hosts: dict[str, Any]) -> None:
    master, replica = hosts["redis-1"], hosts["redis-2"]
    before = full_syncs(master, (None, FIRST))
    said.says(redis_requirepass=SECOND, redis_previous_password=FIRST)
    with clients(master, (None, FIRST)) as use:
        planned = said.play(DEPLOY, "--check", "--diff")
        succeeded(planned)
        assert is_seen("passwords#plan", planned.output), planned.output[-3000:]
        assert refused(master, (None, SECOND), "PING")
        # A run that is killed is finished by the next one.
        said.killed(DEPLOY, "TASK [proven.redis.redis : configure | Configure the server")
        use((None, FIRST), (None, SECOND))
        succeeded(said.play(DEPLOY))
        hidden(said.play(DEPLOY, "--diff", "-vvv"))
        succeeded(said.play(DEPLOY), changed=0)
        for host in (master, replica):
            ask(host, (None, SECOND), "CONFIG", "REWRITE")
        succeeded(said.play(DEPLOY), changed=0)
        # Also the file knows both.
        replica.check_output("systemctl restart redis-server")
        succeeded(said.play(DEPLOY), changed=0)
        assert ask(replica, (None, FIRST), "PING") is True
        use((None, SECOND))
        said.says(redis_requirepass=SECOND)
        succeeded(said.play(DEPLOY))
    assert refused(master, (None, FIRST), "PING")
    assert refused(replica, (None, FIRST), "PING")
    assert linked(replica, (None, SECOND))
    assert full_syncs(master, (None, SECOND)) == before
    succeeded(said.play(DEPLOY), changed=0)


# --- users -----------------------------------------------------------------------------------


def test_users_are_introduced(said: Inventory, hosts: dict[str, Any]) -> None:
    said.says(redis_requirepass=SECOND, redis_acl_users=users())
    planned = said.play(DEPLOY, "--check", "--diff")
    succeeded(planned)
    assert is_seen("users#plan", planned.output), planned.output[-3000:]
    hidden(planned)
    succeeded(said.play(DEPLOY))
    for host in (hosts[name] for name in REDIS):
        # The restart has happened: what is refused now comes from the file.
        assert refused(host, (None, None), "PING")
        assert refused(host, ("shop", "no password of it"), "PING")
        assert ask(host, (None, SECOND), "CONFIG", "GET", "aclfile")[1] == "/etc/redis/redis.acl"
        assert host.file("/etc/redis/redis.acl").mode == 0o640
    assert linked(hosts["redis-2"], (None, SECOND))
    assert ask(hosts["redis-2"], (None, SECOND), "CONFIG", "GET", "masteruser")[1] == "replica"
    succeeded(said.play(DEPLOY), changed=0)


@pytest.mark.parametrize(
    ("login", "may", "may_not"),
    [
        (
            ("shop", SHOP),
            [["SET", "a", "1"], ["GET", "a"], ["EVAL", "return 1", "0"], ["PUBLISH", "c", "m"],
             ["INFO", "server"], ["CLIENT", "SETNAME", "n"]],
            [["FLUSHALL"], ["KEYS", "*"], ["CONFIG", "GET", "*"], ["SHUTDOWN", "NOSAVE"],
             ["REPLICAOF", "NO", "ONE"], ["ACL", "LIST"], ["BGSAVE"],
             ["CLIENT", "KILL", "TYPE", "normal"], ["MONITOR"]],
        ),
        (
            ("replica", REPLICATION),
            [["PING"], ["REPLCONF", "listening-port", "1"]],
            [["GET", "a"], ["SET", "a", "1"], ["INFO"], ["CONFIG", "GET", "*"], ["KEYS", "*"],
             ["REPLICAOF", "NO", "ONE"], ["PUBLISH", "c", "m"]],
        ),
        (
            ("saver", BACKUP),
            [["PING"], ["INFO"], ["TIME"], ["CONFIG", "GET", "dir"]],
            [["GET", "a"], ["SET", "a", "1"], ["CONFIG", "SET", "dir", "/tmp"], ["FLUSHALL"],
             ["SAVE"], ["CONFIG", "REWRITE"], ["PUBLISH", "c", "m"], ["PSYNC", "?", "-1"]],
        ),
        (
            ("reports", BACKUP),
            [["GET", "report:1"]],
            [["GET", "a"], ["SET", "report:1", "1"]],
        ),
    ],
)  # fmt: skip
def test_a_user_may_what_it_needs_and_nothing_else(
    hosts: dict[str, Any],
    login: tuple[str, str],
    may: list[list[str]],
    may_not: list[list[str]],
) -> None:
    host = hosts["redis-1"]
    for words in may:
        assert not refused(host, login, *words), words
    for words in may_not:
        assert refused(host, login, *words), words


def test_a_backup_by_the_backup_user_is_accepted(said: Inventory, hosts: dict[str, Any]) -> None:
    succeeded(said.play("playbooks/deploy_backup.yml"))
    config = json.loads(hosts["redis-2"].check_output("cat /etc/redis-backup/redis.json"))
    assert (config["redis"]["username"], config["redis"]["password"]) == ("saver", BACKUP)
    made = said.play("playbooks/backup_now.yml")
    succeeded(made)
    assert "made by the replica redis-2" in " ".join(made.output.split())
    succeeded(said.play("playbooks/show_status.yml"))


def test_passwords_of_users_change_and_no_client_fails(
    said: Inventory, hosts: dict[str, Any]
) -> None:
    master, replica = hosts["redis-1"], hosts["redis-2"]
    before = full_syncs(master, (None, SECOND))
    said.says(redis_requirepass=SECOND, redis_acl_users=users(shop={"password": SHOP_NEW}))
    stopped = said.play(DEPLOY)
    assert stopped.code != 0
    assert stopped.total_changed == 0
    assert is_seen("users#refused", stopped.output), stopped.output[-3000:]
    assert ask(master, ("shop", SHOP), "PING") is True

    new_ones = users(shop={"password": SHOP_NEW}, replica={"password": REPLICATION_NEW})
    both = users(
        shop={"password": SHOP_NEW, "previous_password": SHOP},
        replica={"password": REPLICATION_NEW, "previous_password": REPLICATION},
    )
    with clients(master, ("shop", SHOP), (None, SECOND)) as use:
        said.says(redis_requirepass=THIRD, redis_previous_password=SECOND, redis_acl_users=both)
        changed = said.play(DEPLOY, "--diff", "-vvv")
        succeeded(changed)
        hidden(changed)
        use(("shop", SHOP), ("shop", SHOP_NEW), (None, SECOND), (None, THIRD))
        # What the server writes into its files by itself is no change.
        for host in (master, replica):
            ask(host, (None, THIRD), "ACL", "SAVE")
            ask(host, (None, THIRD), "CONFIG", "REWRITE")
        succeeded(said.play(DEPLOY), changed=0)
        use(("shop", SHOP_NEW), (None, THIRD))
        said.says(redis_requirepass=THIRD, redis_acl_users=new_ones)
        succeeded(said.play(DEPLOY))
    for login in (("shop", SHOP), (None, SECOND), ("replica", REPLICATION)):
        assert refused(master, login, "PING"), login
    # The link is made with the new one.
    ask(master, (None, THIRD), "CLIENT", "KILL", "TYPE", "replica")
    succeeded(said.play(DEPLOY), changed=0)
    assert linked(replica, (None, THIRD))
    assert full_syncs(master, (None, THIRD)) == before


def test_what_the_server_refuses_and_who_is_not_in_the_inventory(
    said: Inventory, hosts: dict[str, Any]
) -> None:
    master = hosts["redis-1"]
    now = users(shop={"password": SHOP_NEW}, replica={"password": REPLICATION_NEW})
    wrong = users(
        shop={"password": SHOP_NEW, "rules": ["~*", "+no-such-command"]},
        replica={"password": REPLICATION_NEW},
    )
    said.says(redis_requirepass=THIRD, redis_acl_users=wrong)
    stopped = said.play(DEPLOY)
    assert stopped.code != 0
    assert stopped.total_changed == 0
    assert is_seen("users#wrong-rule", stopped.output), stopped.output[-3000:]
    ask(master, (None, THIRD), "ACL", "SETUSER", "intruder", "on", "nopass", "+@all", "~*")
    said.says(redis_requirepass=THIRD, redis_acl_users=now)
    swept = said.play(DEPLOY, "--diff")
    succeeded(swept, changed=1)
    assert "user intruder: not in the inventory (ACL DELUSER)" in swept.output
    assert refused(master, ("intruder", "any"), "PING")


def test_nobody_connects_without_a_name(said: Inventory, hosts: dict[str, Any]) -> None:
    now = users(shop={"password": SHOP_NEW}, replica={"password": REPLICATION_NEW})
    said.says(redis_requirepass=THIRD, redis_acl_users=now, redis_admin_user="operator")
    succeeded(said.play("site.yml"))
    for host in (hosts[name] for name in REDIS):
        assert refused(host, (None, THIRD), "PING")
        assert ask(host, ("operator", THIRD), "CONFIG", "GET", "aclfile")[1]
        host.check_output("systemctl restart redis-server")
    succeeded(said.play("site.yml"), changed=0)
    for host in (hosts[name] for name in REDIS):
        assert refused(host, (None, None), "PING")
    assert linked(hosts["redis-2"], ("operator", THIRD))
    assert playbook("passwords#run") == ["site.yml"]
