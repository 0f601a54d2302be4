"""Programs that some tests need and that are not of Python.

Where one is missing its tests are skipped, unless ``DEFERPOST_REQUIRE_ALL`` is set, as it is by
``.ci/run``: then they fail.
"""

from __future__ import annotations

import os
import shutil

import pytest

__all__ = ["required"]


def required(program: str, package: str) -> str:
    """The path of a program; the test is skipped, or fails, where it is missing.

    :param program: its name.
    :param package: the package of Debian that has it.
    """
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    path = shutil.which(program, path=folders)
    if path is not None:
        return path
    message = f"there is no {program} here: apt-get install {package}"
    if os.environ.get("DEFERPOST_REQUIRE_ALL"):
        pytest.fail(message)
    pytest.skip(message)
