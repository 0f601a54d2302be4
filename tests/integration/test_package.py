"""The wheel, as somebody gets it who has no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from deferpost import __version__

pytestmark = pytest.mark.integration

CHECKOUT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program that knows nothing of this one's environment, and return what it printed."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COVERAGE", "PYTEST", "PYTHON", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        [os.fspath(part) for part in command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def copy_of_the_sources(to: Path) -> Path:
    """Copy what git would publish, so that nothing left from earlier builds gets in."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip(f"the sources are not in a git checkout: {listed.stderr.strip()}")
    for name in filter(None, listed.stdout.split("\0")):
        # git also lists what has been deleted and not yet committed.
        if (CHECKOUT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, to / name)
    return to


class Installed(NamedTuple):
    """A wheel, and an environment with nothing of deferpost's but what is in it."""

    wheel: Path
    bin: Path
    elsewhere: Path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the wheel and install it."""
    base = tmp_path_factory.mktemp("package")
    elsewhere = base / "elsewhere"
    elsewhere.mkdir()
    sources = copy_of_the_sources(base / "sources")
    run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
        *("--outdir", base / "dist", sources),
        cwd=elsewhere,
    )
    (wheel,) = (base / "dist").iterdir()
    environment = base / "environment"
    venv.create(environment, symlinks=True)
    paths = sysconfig.get_paths("venv", {"base": str(environment), "platbase": str(environment)})
    # The dependencies are lent by this environment.  A directory that a .pth file names is put on
    # sys.path behind the environment's own, and .pth files in it are not read: an editable
    # install there does not count.
    Path(paths["purelib"], "lent.pth").write_text(
        "".join(
            f"{path}\n" for path in dict.fromkeys(map(sysconfig.get_path, ("purelib", "platlib")))
        ),
        encoding="utf-8",
    )
    run(
        *(sys.executable, "-m", "pip", "--python", environment),
        *("install", "--no-deps", "--no-index", wheel),
        cwd=elsewhere,
    )
    return Installed(wheel, Path(paths["scripts"]), elsewhere)


def test_the_wheel_holds_the_package_and_nothing_else(installed: Installed) -> None:
    """The wheel has the types marker and the plugin, and neither tests nor files of Twisted's."""
    with zipfile.ZipFile(installed.wheel) as archive:
        names = set(archive.namelist())
    assert {"deferpost/py.typed", "twisted/plugins/deferpost_plugin.py"} <= names
    assert {name for name in names if name.startswith("twisted/")} == {
        "twisted/plugins/deferpost_plugin.py"
    }
    metadata = f"deferpost-{__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"deferpost", "twisted", metadata}
    modules = {
        path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "deferpost").rglob("*.py")
    }
    assert modules <= names


def test_every_public_name_is_there(installed: Installed) -> None:
    """Each name of the package's face can be imported from the installed package."""
    program = (
        "import deferpost\n"
        "from deferpost import *\n"
        "print(deferpost.__file__, deferpost.__version__)\n"
        "assert set(deferpost.__all__) <= set(dir(deferpost)) & set(globals()), dir(deferpost)\n"
    )
    output = run(installed.bin / "python", "-c", program, cwd=installed.elsewhere)
    file, version = output.split()
    assert installed.bin.parent in Path(file).parents
    assert version == __version__


def test_twistd_lists_the_daemon(installed: Installed) -> None:
    """``twistd --help`` names deferpost, in an environment that has it and from any directory."""
    program = "from twisted.scripts.twistd import run; run()"
    output = run(installed.bin / "python", "-c", program, "--help", cwd=installed.elsewhere)
    (line,) = (line for line in output.splitlines() if line.split()[:1] == ["deferpost"])
    assert "HTTP POST" in line


def test_the_daemon_has_a_command_of_its_own(installed: Installed) -> None:
    """The command ``deferpost`` is installed and shows its options."""
    output = run(installed.bin / "deferpost", "--help", cwd=installed.elsewhere)
    assert "--listen" in output
