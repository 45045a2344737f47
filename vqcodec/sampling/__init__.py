"""Sampling from the autoregressive decoder."""
