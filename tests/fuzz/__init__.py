"""Fuzzing of the wire, by atheris: ``make fuzz``.

What it finds becomes a test in ``tests/wire/test_found.py``.
"""
