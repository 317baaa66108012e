"""One backup of the set: whose turn it is, the snapshot, the upload, the receipt.

Run by `redis-backup create` and `turn` on a Redis host, as the user of the Redis server.
"""
