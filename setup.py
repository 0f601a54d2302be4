"""Build deferpost.  The settings of the tools are in ``pyproject.toml``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def version() -> str:
    """The version, read from its one place without importing the package."""
    text = (HERE / "deferpost" / "_version.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise RuntimeError("deferpost/_version.py names no __version__")
    return found.group(1)


TLS = ["Twisted[tls]>=25.5"]
TESTING = ["pytest>=8", "pytest-twisted"]
EXAMPLES = ["docutils>=0.22"]
FUZZ = ["atheris>=3"]
DEV = [
    *TLS,
    *TESTING,
    *EXAMPLES,
    "build",
    "coverage>=7.10",  # the first with `patch = subprocess`
    "hypothesis",
    "klein",
    "PyHamcrest",  # for Twisted's own tests, as http2 is: tests/wire/twistedcases.py
    "Twisted[http2,websocket]>=25.5",
    "mypy",
    "mypy-zope",
    "pytest<9.2",  # of which pytest-xdist 3.8 takes the groups for nothing: each ran several times
    "pytest-randomly",
    "pytest-timeout",
    "pytest-xdist",
    "ruff",
    "selenium",  # for the status page in Chromium: tests/integration/test_status_page.py
    "setuptools>=68",  # the packaging test builds without isolation
    "types-docutils",
    "wheel",
]

setup(
    name="deferpost",
    version=version(),
    description="Slow Python work behind an HTTP POST, without ever blocking Twisted's reactor",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    author="the deferpost authors",
    license="MIT",
    license_files=["LICENSE"],
    keywords="twisted http post jobs queue background-work",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP :: HTTP Servers",
        "Topic :: Software Development :: Libraries :: Python Modules",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    install_requires=[
        "Twisted>=25.5",
        "attrs",
        "httptools>=0.8",
        "msgspec",
        "multipart>=2.0",
        "prometheus_client>=0.22",
        "treq",
        "zope.interface",
    ],
    extras_require={
        "tls": TLS,
        "testing": TESTING,
        "examples": EXAMPLES,
        "fuzz": FUZZ,
        "dev": DEV,
    },
    entry_points={"console_scripts": ["deferpost = deferpost.command:main"]},
    # An explicit root lets an editable install put this directory itself on sys.path, by a plain
    # .pth file.  Twisted looks for plugins in directories of sys.path only: an import hook, which
    # is what setuptools installs otherwise, would hide twisted/plugins from twistd.
    package_dir={"": "."},
    # twisted.plugins is named because discovery misses it: it has, and must have, no __init__.py.
    packages=[*find_packages(include=["deferpost", "deferpost.*"]), "twisted.plugins"],
    package_data={
        "deferpost": ["py.typed"],
        "deferpost.web.jobs": ["page.html", "page.css", "page.js"],
        "deferpost.web.status": ["page.html", "page.css", "page.js"],
    },
    zip_safe=False,
)
