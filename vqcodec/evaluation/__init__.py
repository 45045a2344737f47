"""Evaluation: measures of decoded speech, reference codecs, and what reports are made of."""
