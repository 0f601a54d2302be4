"""The tests of deferpost.  Packages all the way down, so that trial can name each module."""
