"""Apps to read, to run and to copy from.  The tests run every one of them."""
