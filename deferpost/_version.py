"""The version of deferpost, in its one place: ``setup.py`` reads it from here without an import."""

__version__ = "0.1.0"
