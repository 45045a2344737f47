"""Data sets of any size, on one machine or many: recordings to codes and back, shard by shard."""
