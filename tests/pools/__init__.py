"""The tests of the pools."""
