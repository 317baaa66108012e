"""What the measured servers hold, key by key."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import redis

#: Writes the key of a number into a pipeline.
Write = Callable[[Any, int, random.Random], None]
_KEYS_AT_ONCE = 5000


def session(pipe: Any, number: int, chance: random.Random) -> None:
    """A session as an application has it: JSON of about 200 bytes, half of them expire."""
    token = f"{chance.getrandbits(256):064x}"
    value = (
        f'{{"id":{number},"user":"user-{number % 5000}@example.org","token":"{token}",'
        f'"roles":["reader","writer"],"seen":{1_700_000_000 + number},"cart":[]}}'
    )
    pipe.set(f"session:{number}", value, ex=86400 * 30 if number % 2 else None)


def mixed(pipe: Any, number: int, chance: random.Random) -> None:
    """Some of everything: of twenty keys eight are hashes of six fields, six sessions that expire,
    two each sorted sets and lists of eight, one a set of six, one an integer.
    """
    kind = number % 20
    if kind < 8:
        fields = {f"field{item}": f"value {item} {chance.getrandbits(30)}" for item in range(6)}
        pipe.hset(f"hash:{number}", mapping=fields)
    elif kind < 14:
        session(pipe, number | 1, chance)
    elif kind < 16:
        members = {f"member:{chance.getrandbits(40)}": chance.random() * 1000 for _ in range(8)}
        pipe.zadd(f"zset:{number}", members)
    elif kind < 18:
        pipe.delete(f"list:{number}")
        pipe.rpush(f"list:{number}", *(f"element {chance.getrandbits(24)}" for _ in range(8)))
    elif kind < 19:
        pipe.sadd(f"set:{number}", *(f"tag-{chance.getrandbits(40)}" for _ in range(6)))
    else:
        pipe.set(f"integer:{number}", chance.getrandbits(30))


def kilobyte(pipe: Any, number: int, chance: random.Random) -> None:
    """A value of 1 KB: JSON of which a half does not compress."""
    value = b'{"id":%d,"token":"%s","cart":[%s]}' % (
        number,
        chance.randbytes(350).hex().encode(),
        b'{"item":1,"price":10},' * 14,
    )
    pipe.set(b"session:%d" % number, value[:1024])


def fill(client: redis.Redis, write: Write, numbers: Iterable[int], seed: int) -> None:
    """Write the keys of these numbers."""
    chance = random.Random(seed)
    with client.pipeline(transaction=False) as pipe:
        for count, number in enumerate(numbers, 1):
            write(pipe, number, chance)
            if count % _KEYS_AT_ONCE == 0:
                pipe.execute()
        pipe.execute()
