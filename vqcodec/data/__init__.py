"""Corpora on disk, the prepared training data made from them, and its loading."""
