"""Users as lines of an aclfile: rendered, read, compared, planned, and booted."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.module_utils.redis_acl import (
    PRESETS,
    AclError,
    Step,
    for_version,
    plan,
    read,
    render,
    setuser,
    sha256,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import (
    Connection,
    ServerError,
    logins,
)

from tests.support.servers import SUITES, Binary, of_suite
from tests.unit.redis_on_socket import running, short_directory

ADMIN = "a 'strange\" password # > é"
SHOP = "{{ another }} $strange one \\"
USERS: list[dict[str, Any]] = [
    {"name": name, "preset": name, "password": f"{name} {SHOP}"} for name in PRESETS
]


def change(**extra: Any) -> dict[str, Any]:
    return {"name": "shop", "preset": "application", "password": SHOP, **extra}


# --- the lines -------------------------------------------------------------------------------


def test_there_is_always_a_default_user_and_never_a_password() -> None:
    text = render([change()], "default", [ADMIN])
    assert text.splitlines()[0] == f"user default on #{sha256(ADMIN)} ~* &* +@all"
    assert SHOP not in text
    off = render([], "operator", [ADMIN])
    assert off.splitlines()[1] == "user default off ~* &* +@all"
    assert render([], "default", []) == "user default on nopass ~* &* +@all\n"


def test_while_it_changes_a_password_is_two() -> None:
    user = read(render([change(previous_password=ADMIN)], "default", [ADMIN, SHOP]).splitlines())
    assert user["shop"].passwords == user["default"].passwords == {sha256(ADMIN), sha256(SHOP)}


def test_channels_are_always_said() -> None:
    lines = render([change(rules=["~a", "+get"])], "default", [ADMIN]).splitlines()
    assert lines[1].endswith("resetchannels ~a +get")
    assert "&" not in for_version("\n".join(lines), "6.0.16")
    assert "resetchannels" not in for_version("\n".join(lines), "6.0.16")
    assert for_version("\n".join(lines), "6.2") == "\n".join(lines)


@pytest.mark.parametrize(
    "user",
    [
        change(name="default"),
        change(name="two words"),
        change(name=None),
        change(password=None),
        change(password="short"),
        change(password="with a newline\n in it"),
        change(preset=None),
        change(preset="nobody"),
        change(rules="+get"),
        change(rules=["+get", "nopass"]),
        change(rules=[">a password of its own"]),
        change(rules=["(+get"]),
    ],
)
def test_what_cannot_be_a_user(user: dict[str, Any]) -> None:
    with pytest.raises(AclError) as error:
        render([user], "default", [ADMIN])
    assert SHOP not in str(error.value)
    assert "a password of its own" not in str(error.value)


def test_nor_can_two_have_one_name() -> None:
    with pytest.raises(AclError, match="more than once"):
        render([change(), change()], "default", [ADMIN])


# --- the plan --------------------------------------------------------------------------------


def users(*listed: dict[str, Any], passwords: tuple[str, ...] = (ADMIN,)) -> Any:
    return read(render(listed, "default", passwords).splitlines())


def test_users_come_change_and_go() -> None:
    now = users(change(), change(name="old"))
    wanted = users(change(rules=["~a", "+get"]), change(name="new"))
    steps = plan(wanted, now)
    assert [(step.kind, step.name) for step in steps] == [
        ("create", "new"), ("change", "shop"), ("delete", "old"),
    ]  # fmt: skip
    assert steps[1].says.endswith("-> resetchannels ~a +get")
    assert plan(now, now) == []


def test_a_password_goes_only_when_another_works_already() -> None:
    old, both, new = (
        users(change(password=ADMIN)),
        users(change(previous_password=ADMIN)),
        users(change()),
    )
    with pytest.raises(AclError, match="the password of shop is another one"):
        plan(new, old)
    assert plan(both, old) == [Step("change", "shop", "1 more password")]
    assert plan(new, both) == [Step("change", "shop", "1 password less")]


def test_commands_that_a_server_tells_in_another_order_are_the_same() -> None:
    def rules(*words: str) -> tuple[str, ...]:
        return read([f"user x on {' '.join(words)}"])["x"].rules

    assert rules("-@all", "+ping", "+get", "+config|get", "+config|set") == rules(
        "-@all", "+config|set", "+config|get", "+get", "+ping"
    )
    assert rules("+@all", "-client", "+client|id") != rules("+@all", "+client|id", "-client")
    assert rules("+get", "-@read") != rules("-@read", "+get")


def test_a_line_that_is_none_is_refused() -> None:
    with pytest.raises(AclError):
        read(["password secret"])


# --- servers ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=sorted(SUITES))
def binary(request: pytest.FixtureRequest) -> Binary:
    return of_suite(request.param)


@pytest.fixture(scope="module")
def wanted(binary: Binary) -> str:
    return for_version(render(USERS, "default", [ADMIN]), binary.version)


CONFIG = 'port 0\nunixsocket socket\nsave ""\n'


def connect(directory: Any, name: str, password: str) -> Connection:
    connection = Connection(unixsocket=str(directory / "socket"))
    connection.log_in(logins(name, password))
    return connection


def test_what_is_set_live_is_what_a_server_starts_with(binary: Binary, wanted: str) -> None:
    """And what it saves, in its own spelling, is the same again."""
    lists = []
    with short_directory() as directory:
        (directory / "users.acl").write_text(wanted, encoding="utf-8")
        for _ in range(2):
            with running(directory, f"{CONFIG}aclfile users.acl\n", ADMIN, binary) as server:
                lists.append(read(server.connection.command("ACL", "LIST")))
                server.connection.command("ACL", "SAVE")
    with short_directory() as directory, running(directory, CONFIG, "", binary) as server:
        for name in lists[0]:
            server.connection.command("ACL", "SETUSER", *setuser(wanted, name))
            # Also over what is there already.
            server.connection.command("ACL", "SETUSER", *setuser(wanted, name))
        lists.append(read(server.connection.command("ACL", "LIST")))
    assert lists[0] == lists[1] == lists[2]
    assert plan(lists[0], lists[2]) == []


def test_nobody_is_let_in_without_a_password(binary: Binary, wanted: str) -> None:
    with short_directory() as directory:
        (directory / "users.acl").write_text(wanted, encoding="utf-8")
        with running(directory, f"{CONFIG}aclfile users.acl\n", ADMIN, binary):
            with (
                Connection(unixsocket=str(directory / "socket")) as connection,
                pytest.raises(ServerError, match="NOAUTH"),
            ):
                connection.command("PING")
            for user in USERS:
                with pytest.raises(ServerError, match="WRONGPASS"):
                    connect(directory, user["name"], ADMIN + ".")


def test_who_turns_the_default_user_off_is_not_shut_out_by_that(binary: Binary) -> None:
    text = for_version(render([], "operator", [ADMIN]), binary.version)
    with short_directory() as directory, running(directory, CONFIG, "", binary) as server:
        for name in ("operator", "default"):
            server.connection.command("ACL", "SETUSER", *setuser(text, name))
        assert len(server.connection.command("ACL", "LIST")) == 2
        with (
            Connection(unixsocket=str(directory / "socket")) as connection,
            pytest.raises(ServerError, match="NOAUTH"),
        ):
            connection.command("PING")
        connect(directory, "operator", ADMIN).close()


@pytest.mark.parametrize(
    ("name", "may", "may_not"),
    [
        (
            "application",
            ["SET a 1", "GET a", "INFO", "EVAL return(1) 0", "PUBLISH c m", "CLIENT SETNAME n"],
            ["FLUSHALL", "KEYS *", "CONFIG GET *", "SHUTDOWN", "REPLICAOF NO ONE", "ACL LIST",
             "BGSAVE", "CLIENT KILL TYPE normal", "MONITOR", "MIGRATE a 1 k 0 1"],
        ),
        (
            "replication",
            ["PING", "REPLCONF listening-port 1"],
            ["GET a", "SET a 1", "INFO", "CONFIG GET *", "REPLICAOF NO ONE", "SAVE"],
        ),
        (
            "backup",
            ["PING", "INFO", "TIME", "CONFIG GET dir", "BGSAVE"],
            ["GET a", "SET a 1", "CONFIG SET maxmemory 1", "CONFIG REWRITE", "SAVE", "PSYNC ? -1",
             "FLUSHALL", "ACL LIST"],
        ),
        ("administrator", ["SET a 1", "CONFIG GET dir", "ACL LIST", "FLUSHALL"], []),
    ],
)  # fmt: skip
def test_a_preset_allows_what_is_needed_and_nothing_else(
    binary: Binary, wanted: str, name: str, may: list[str], may_not: list[str]
) -> None:
    with short_directory() as directory:
        (directory / "users.acl").write_text(wanted, encoding="utf-8")
        with running(directory, f"{CONFIG}aclfile users.acl\n", ADMIN, binary):
            connection = connect(directory, name, f"{name} {SHOP}")
            for line in may:
                connection.command(*line.split())
            for line in may_not:
                with pytest.raises(ServerError, match="NOPERM"):
                    connection.command(*line.split())
            connection.close()


def test_a_requirepass_changes_at_one_stroke(binary: Binary) -> None:
    """What redis_acl does where there is no aclfile; CONFIG SET alone would end the old one."""
    with short_directory() as directory:
        config = f'{CONFIG}requirepass "the old password"\n'
        with running(directory, config, "the old password", binary) as server:
            command = server.connection.command
            command("MULTI")
            command("CONFIG", "SET", "requirepass", SHOP)
            hashes = [f"#{sha256(word)}" for word in ("the old password", SHOP)]
            command("ACL", "SETUSER", "default", "resetpass", *hashes)
            assert command("EXEC") == ["OK", "OK"]
            for word in ("the old password", SHOP):
                connect(directory, "default", word).close()
            assert command("CONFIG", "GET", "requirepass")[1] == SHOP
