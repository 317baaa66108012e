"""Fill a Redis set with data that looks like a small shop's, in dbs 0, 1, 5 and 10.

Runs on a host of the set, with Python 3.9 and Debian's python3-redis. Takes {"address", "port",
"password"} as JSON from standard input, so that the password is in no process list, and follows a
replica to its master. The same keys with the same values every time; what is not its own is left
alone.
"""

from __future__ import annotations

import json
import random
import sys
import typing

import redis  # there on every host that is backed up: `redis-backup` needs it too

DAY = 86400
SHORT = 45  # seconds: gone before a drill, so that expiry between backup and proof is part of it


def master(address: str, port: int, password: str) -> dict[str, typing.Any]:
    """How to connect to the set's master, found by asking any of its hosts."""
    server: dict[str, typing.Any] = {"host": address, "port": port, "password": password}
    server["socket_timeout"] = 30
    seen = redis.Redis(**server).info("replication")
    if seen["role"] != "master":
        server.update(host=seen["master_host"], port=seen["master_port"])
    return server


def sessions(pipe: typing.Any, dice: random.Random) -> None:
    for number in range(12000):
        session = {"user": number % 6000, "cart": dice.sample(range(900), dice.randrange(5))}
        life = dice.randrange(DAY, 30 * DAY)
        pipe.set(f"session:{number:05d}", json.dumps(session), ex=life)
    for number in range(200):
        pipe.set(f"otp:{number:03d}", dice.randrange(10**6), ex=SHORT)


def shop(pipe: typing.Any, dice: random.Random) -> None:
    for number in range(6000):
        town = number % 97
        customer = {"name": f"Customer {number}", "city": f"Town {town}"}
        pipe.hset(f"user:{number}", mapping={**customer, "visits": dice.randrange(500)})
        pipe.zadd("ranking", {f"user:{number}": dice.randrange(10**6) / 100})
        pipe.sadd(f"town:{town}", number)
    for number in range(120):
        note = f"Customer {number} wrote: {'ja, naïve façade – 你好 ' * dice.randrange(1, 40)}"
        pipe.set(f"note:{number}", note)
    pipe.setbit("seen", 50000, 1)


def orders(pipe: typing.Any, dice: random.Random) -> None:
    pipe.delete("orders", "queue:mail")
    ids = [f"{1700000000000 + number}-0" for number in range(1, 1501)]
    for entry in ids:
        order = {"user": dice.randrange(6000), "cents": dice.randrange(100, 50000)}
        pipe.xadd("orders", order, id=entry)
    pipe.xgroup_create("orders", "billing", id="0")
    pipe.xreadgroup("billing", "clerk", {"orders": ">"}, count=400)
    pipe.xack("orders", "billing", *ids[:350])
    for number in range(800):
        pipe.rpush("queue:mail", json.dumps({"to": number, "text": "Your parcel is here"}))


def cache(pipe: typing.Any, dice: random.Random) -> None:
    for number in range(1500):
        pipe.set(f"page:{number}", "<p>" + "lorem ipsum " * dice.randrange(2, 30), ex=DAY)


def main() -> int:
    wanted = json.load(sys.stdin)
    server = master(wanted["address"], int(wanted["port"]), wanted["password"])
    dice = random.Random(20)
    for db, fill in ((0, sessions), (1, shop), (5, orders), (10, cache)):
        with redis.Redis(**server, db=db).pipeline(transaction=False) as pipe:
            fill(pipe, dice)
            pipe.execute()
    for name, counts in redis.Redis(**server).info("keyspace").items():
        print(f"{name}: " + ",".join(f"{what}={count}" for what, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
