"""The codec over HTTP: what `vqcodec serve` and `vqcodec studio` offer."""
