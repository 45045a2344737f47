"""The .codes file, as docs/format.md specifies it. Imports no torch."""
