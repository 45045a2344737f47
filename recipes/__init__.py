"""The packaged recipes."""
