"""A confined Redis server that loads a file which nobody vouches for.

Run on the drill host. The drill orders it, as the user redis-backup; `prober` alone runs inside, in
the unit redis-backup-sandbox.service, as a user of its own and with the standard library alone.
"""
