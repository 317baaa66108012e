"""Fill a Redis set with data that looks like a small shop's, in dbs 0, 1, 5 and 10.

Runs on a host of the set, with Python 3.9 and nothing else. Takes {"address", "port", "password"}
as JSON from standard input, so that the password is in no process list, and follows a replica to
its master. The same keys with the same values every time; what is not its own is left alone.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import typing

DAY = 86400
SHORT = 45  # seconds: gone before a drill, so that expiry between backup and proof is part of it
BATCH = 500


class Redis:
    """One connection, commands sent in batches; an error reply raises RuntimeError."""

    def __init__(self, address: str, port: int, password: str) -> None:
        self.socket = socket.create_connection((address, port), 30)
        self.replies = self.socket.makefile("rb")
        self.waiting = 0
        if password:
            self.ask("AUTH", password)

    def send(self, *words: object) -> None:
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            data = str(word).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
        self.socket.sendall(b"".join(parts))
        self.waiting += 1
        if self.waiting >= BATCH:
            self.drain()

    def drain(self) -> None:
        while self.waiting:
            self.waiting -= 1
            self.read()

    def ask(self, *words: object) -> typing.Any:
        self.drain()
        self.send(*words)
        self.waiting -= 1
        return self.read()

    def read(self) -> typing.Any:
        line = self.replies.readline()
        kind, text = line[:1], line[1:].strip().decode()
        if kind == b"-":
            raise RuntimeError(f"Redis answers: {text}")
        if kind == b":":
            return int(text)
        if kind == b"$":
            size = int(text)
            return None if size < 0 else self.replies.read(size + 2)[:-2].decode()
        if kind == b"*":
            return [self.read() for _ in range(max(0, int(text)))]
        if kind == b"+":
            return text
        raise RuntimeError("the connection was closed")


def info(redis: Redis, section: str) -> dict[str, str]:
    lines = redis.ask("INFO", section).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def master(address: str, port: int, password: str) -> Redis:
    """A connection to the set's master, found by asking any of its hosts."""
    redis = Redis(address, port, password)
    seen = info(redis, "replication")
    if seen["role"] == "master":
        return redis
    return Redis(seen["master_host"], int(seen["master_port"]), password)


def sessions(redis: Redis, dice: random.Random) -> None:
    redis.send("SELECT", 0)
    for number in range(12000):
        session = {"user": number % 6000, "cart": dice.sample(range(900), dice.randrange(5))}
        life = dice.randrange(DAY, 30 * DAY)
        redis.send("SET", f"session:{number:05d}", json.dumps(session), "EX", life)
    for number in range(200):
        redis.send("SET", f"otp:{number:03d}", dice.randrange(10**6), "EX", SHORT)


def shop(redis: Redis, dice: random.Random) -> None:
    redis.send("SELECT", 1)
    for number in range(6000):
        redis.send(
            "HSET", f"user:{number}", "name", f"Customer {number}", "city", f"Town {number % 97}",
            "visits", dice.randrange(500),
        )  # fmt: skip
        redis.send("ZADD", "ranking", dice.randrange(10**6) / 100, f"user:{number}")
        redis.send("SADD", f"town:{number % 97}", number)
    for number in range(120):
        note = f"Customer {number} wrote: {'ja, naïve façade – 你好 ' * dice.randrange(1, 40)}"
        redis.send("SET", f"note:{number}", note)
    redis.send("SETBIT", "seen", 50000, 1)


def orders(redis: Redis, dice: random.Random) -> None:
    redis.send("SELECT", 5)
    redis.send("DEL", "orders", "queue:mail")
    for number in range(1, 1501):
        redis.send("XADD", "orders", f"{1700000000000 + number}-0", "user", dice.randrange(6000),
                   "cents", dice.randrange(100, 50000))  # fmt: skip
    redis.send("XGROUP", "CREATE", "orders", "billing", "0")
    redis.send("XREADGROUP", "GROUP", "billing", "clerk", "COUNT", 400, "STREAMS", "orders", ">")
    redis.send("XACK", "orders", "billing", *(f"{1700000000000 + n}-0" for n in range(1, 351)))
    for number in range(800):
        redis.send("RPUSH", "queue:mail", json.dumps({"to": number, "text": "Your parcel is here"}))


def cache(redis: Redis, dice: random.Random) -> None:
    redis.send("SELECT", 10)
    for number in range(1500):
        redis.send(
            "SET", f"page:{number}", "<p>" + "lorem ipsum " * dice.randrange(2, 30), "EX", DAY
        )


def main() -> int:
    wanted = json.load(sys.stdin)
    redis = master(wanted["address"], int(wanted["port"]), wanted["password"])
    dice = random.Random(20)
    for fill in (sessions, shop, orders, cache):
        fill(redis, dice)
        redis.drain()
    for database, counts in info(redis, "keyspace").items():
        print(f"{database}: {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
