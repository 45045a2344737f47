"""The command line of vqcodec: it parses, calls the library and prints; one file a group."""
