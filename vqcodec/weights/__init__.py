"""The packaged models; see docs/models/."""
