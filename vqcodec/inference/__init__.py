"""Models at work: recordings to codes and codes to recordings, in chunks."""
