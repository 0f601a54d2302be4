"""Loading what the daemon serves by its name, and what the operator is told if that fails."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from deferpost.app import App
from deferpost.errors import DeclarationError
from deferpost.loading import Modules, is_own, load_app

APP = "from deferpost import App\napp = App()\n"
ROUTE = "@app.post('/rst')\ndef render(call): return 'text'\n"

#: A module of a package of the user's that is compiled.
SHOP_IN_C = ModuleType("shop")
SHOP_IN_C.__spec__ = ModuleSpec("shop", ExtensionFileLoader("shop", "/shop.so"))

#: Writes a module into the current folder.
Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """The current folder is an empty one, and what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != ""])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    known = set(sys.modules)

    def write_module(name: str, source: str) -> None:
        path = tmp_path / (name.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)

    yield write_module
    for name in set(sys.modules) - known:
        del sys.modules[name]


def refusal(name: str) -> DeclarationError:
    """What is said of a name that cannot be loaded."""
    with pytest.raises(DeclarationError) as caught:
        load_app(name)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


def test_app(write: Write) -> None:
    """An app is found in a module of the current folder."""
    write("served", APP + ROUTE)
    app = load_app("served:app")
    assert isinstance(app, App)
    assert [route.path for route in app.routes] == ["/rst"]


def test_current_folder_is_entered_once(write: Write, tmp_path: Path) -> None:
    """The current folder is put where Python looks, once."""
    write("served", APP + ROUTE)
    load_app("served:app")
    load_app("served:app")
    assert sys.path.count(str(tmp_path)) == 1


def test_app_of_a_package(write: Write) -> None:
    """An app may be deep in a package, and deep in its module."""
    write("shop.__init__", "")
    write("shop.api", APP + ROUTE + "class Apps:\n    first = app\n")
    assert load_app("shop.api:Apps.first") is load_app("shop.api:app")


@pytest.mark.parametrize(
    "source",
    [
        "def render(call): return 'text'",
        "render = lambda call: 'text'",
        "class render:\n    def __call__(self, call): return 'text'",
        "class R:\n    def __call__(self, call): return 'text'\nrender = R()",
    ],
)
def test_handler(write: Write, source: str) -> None:
    """A handler by itself is served at the root."""
    write("served", source)
    (route,) = load_app("served:render").routes
    assert (route.path, route.pool) == ("/", "thread")
    assert route.handler is sys.modules["served"].render


def test_coroutine(write: Write) -> None:
    """A coroutine function by itself is served at the root, on the reactor."""
    write("served", "async def render(call): return 'text'")
    assert load_app("served:render").routes[0].pool == "reactor"


@pytest.mark.parametrize("name", ["", "served", "served:", ":app", ":"])
def test_no_name(write: Write, name: str) -> None:
    """A name has two parts; who forgot one is shown how it is written."""
    assert str(refusal(name)) == (
        f"{name!r} does not name an app: write module:attribute, such as examples.documents:app"
    )


@pytest.mark.parametrize("name", ["absent:app", "absent.deeper:app", "served.deeper:app"])
def test_no_module(write: Write, tmp_path: Path, name: str) -> None:
    """A module that is not there is said to be missing, and where it was looked for."""
    write("served", "")
    error = refusal(name)
    module = name.partition(":")[0]
    assert str(error) == f"there is no module {module!r} in {tmp_path} nor on Python's path"
    assert error.traceback is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("served:ap", "the module served has no 'ap'; it has the App app, other"),
        ("served:app.nope", "the module served has no 'app.nope'"),
        ("served:number.nope", "the module served has no 'number.nope'"),
        ("empty:app", "the module empty has no 'app'"),
        ("unrouted:app", "unrouted:app has no routes; declare one with @app.post(path)"),
        ("served:number", "served:number is neither an App nor a handler, but of the type int"),
        ("served:none", "served:none is neither an App nor a handler, but of the type NoneType"),
    ],
)
def test_no_app(write: Write, name: str, message: str) -> None:
    """What is no app is refused with what it is, or with those that there are."""
    write("served", APP + ROUTE + "other = App()\nnumber = 5\nnone = None\n")
    write("empty", "")
    write("unrouted", APP)
    assert str(refusal(name)) == message


def test_handler_of_no_use(write: Write) -> None:
    """A function that cannot be called with a call is refused as such."""
    write("served", "def render(): return 'text'")
    assert "is called with one argument, the call" in str(refusal("served:render"))


def files_of(error: DeclarationError) -> list[str]:
    """The files in the traceback that the operator is shown."""
    assert error.traceback is not None
    return [
        line.split('"')[1] for line in error.traceback.splitlines() if line.startswith("  File ")
    ]


def test_module_that_fails(write: Write, tmp_path: Path) -> None:
    """A module that raises is shown with its own lines, and with none of ours."""
    write("served", "import lower\n")
    write("lower", "def fail():\n    raise ValueError('no model')\nfail()\n")
    error = refusal("served:app")
    assert str(error) == "the module served does not import: ValueError: no model"
    assert files_of(error) == [
        str(tmp_path / "served.py"),
        str(tmp_path / "lower.py"),
        str(tmp_path / "lower.py"),
    ]
    assert error.traceback is not None
    assert error.traceback.startswith("Traceback (most recent call last):\n")
    assert error.traceback.endswith("ValueError: no model\n")


@pytest.mark.parametrize("name", ["deferpost_apps", "deferpost.py_apps"])
def test_folder_with_a_name_like_ours(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A user's folder is a user's folder, also where its name begins as ours does."""
    monkeypatch.setattr("deferpost.loading.__file__", str(tmp_path / "deferpost" / "loading.py"))
    folder = tmp_path / name
    folder.mkdir()
    (folder / "served.py").write_text("raise ValueError('no')")
    monkeypatch.chdir(folder)
    assert str(folder / "served.py") in files_of(refusal("served:app"))


def test_module_that_misses_another(write: Write) -> None:
    """A module that needs one that is not installed fails with that one's name."""
    write("served", "import surely_not_installed\n")
    error = refusal("served:app")
    assert str(error) == (
        "the module served does not import: ModuleNotFoundError: "
        "No module named 'surely_not_installed'"
    )
    assert len(files_of(error)) == 1


def test_module_that_is_no_python(write: Write, tmp_path: Path) -> None:
    """A mistake in the module's syntax is shown with its line."""
    write("served", "def render(call:\n")
    error = refusal("served:app")
    assert str(error).startswith("the module served does not import: SyntaxError: ")
    assert error.traceback is not None
    assert f'File "{tmp_path / "served.py"}", line 1' in error.traceback


@pytest.mark.parametrize("end", ["raise SystemExit(3)", "import sys; sys.exit('usage: served')"])
def test_module_that_exits(write: Write, end: str) -> None:
    """A module that ends the program when it is imported does not end the daemon unexplained."""
    write("served", end)
    assert str(refusal("served:app")).startswith("the module served does not import: SystemExit: ")


def test_interrupt(write: Write) -> None:
    """Whoever interrupts the import has interrupted it."""
    write("served", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_app("served:app")


def test_declaration_that_is_wrong(write: Write, tmp_path: Path) -> None:
    """A route that cannot work is shown with the line where it stands, and with its reason."""
    write("served", APP + "@app.post('rst')\ndef render(call): return ''\n")
    error = refusal("served:app")
    assert str(error).startswith("'rst' is no path of a route")
    assert files_of(error) == [str(tmp_path / "served.py")]
    assert error.traceback is not None
    assert "is no path" not in error.traceback


@pytest.mark.parametrize("name", [".served:app", "ser ved:app", "..:app"])
def test_odd_names(write: Write, name: str) -> None:
    """Whatever is written for a module's name, the answer is a sentence."""
    assert "\n" not in str(refusal(name))


# Loading again.


@pytest.fixture
def modules(write: Write, tmp_path: Path) -> Modules:
    """The modules of a program that has yet to load its app from the folder."""
    return Modules(str(tmp_path))


def one_version(write: Write, text: str) -> None:
    """Write an app that takes its answer from a module that takes it from another."""
    write("served", APP + "import shop.words\n" + ROUTE.replace("'text'", "shop.words.WORD"))
    write("shop.__init__", "")
    write("shop.words", f"from json import loads\nWORD = {text!r}\n")


def answer(app: App) -> object:
    """What its one handler answers."""
    return app.routes[0].handler(None)


def test_every_module_is_new(write: Write, modules: Modules) -> None:
    """Loaded again, the app and all modules of the user's are new; libraries are as they were."""
    import json

    one_version(write, "old")
    old = load_app("served:app")
    old_module = sys.modules["shop.words"]
    one_version(write, "brand new")
    new, before = modules.load_again("served:app")
    assert (answer(old), answer(new)) == ("old", "brand new")
    assert sys.modules["shop.words"] is not old_module
    assert before["shop.words"] is old_module
    assert sys.modules["json"] is json
    assert {"shop", "shop.words", "served"} <= before.keys()
    assert all("pytest" not in name for name in before)


def test_restored(write: Write, modules: Modules) -> None:
    """What was loaded again can be undone: every module of the user's is the old one."""
    one_version(write, "old")
    old = load_app("served:app")
    known = {name: sys.modules[name] for name in ("served", "shop", "shop.words")}
    one_version(write, "brand new")
    write("shop.more", "")
    write("served", "import shop.more\n" + APP + "import shop.words\n" + ROUTE)
    _, before = modules.load_again("served:app")
    assert "shop.more" in sys.modules
    modules.restore("served:app", before)
    assert {name: sys.modules[name] for name in known} == known
    assert "shop.more" not in sys.modules
    assert sys.modules["shop"].words is sys.modules["shop.words"]
    assert answer(old) == "old"


@pytest.mark.parametrize("broken", ["import shop.more\nraise ValueError('no')", "app = 5", "("])
def test_broken_again(write: Write, modules: Modules, broken: str) -> None:
    """An app that does not load again leaves the modules as they were, to the last one."""
    one_version(write, "old")
    load_app("served:app")
    write("shop.more", "")
    write("served", broken)
    known = dict(sys.modules)
    with pytest.raises(DeclarationError):
        modules.load_again("served:app")
    assert {name: module for name, module in sys.modules.items() if name in known} == known
    assert "shop.more" not in sys.modules


def test_installed_app(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that is installed as a library is the user's own, the libraries beside it are not."""
    library = tmp_path / "site-packages"
    monkeypatch.syspath_prepend(library)
    write("site-packages.shop.__init__", "")
    write("site-packages.shop.api", "import installed\n" + APP + ROUTE)
    write("site-packages.installed", "")
    modules = Modules(str(tmp_path))
    load_app("shop.api:app")
    installed, api = sys.modules["installed"], sys.modules["shop.api"]
    modules.load_again("shop.api:app")
    assert sys.modules["installed"] is installed
    assert sys.modules["shop.api"] is not api


def test_what_cannot_be_loaded_twice(write: Write, modules: Modules) -> None:
    """Modules of Python's, those of the program, and such without a file stay."""
    write("served", APP + "import decimal\n" + ROUTE)
    load_app("served:app")
    made, program = ModuleType("made"), sys.modules["deferpost.app"]
    sys.modules["made"] = made
    decimal = sys.modules["decimal"]
    _, before = modules.load_again("served:app")
    assert before.keys() == {"served"}
    assert sys.modules["made"] is made
    assert sys.modules["decimal"] is decimal
    assert sys.modules["deferpost.app"] is program
    assert not is_own("shop", SHOP_IN_C, "shop")


def test_from_another_folder(
    write: Write, modules: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that has gone to another folder loads again from its first one."""
    one_version(write, "old")
    load_app("served:app")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    one_version(write, "brand new")
    assert answer(modules.load_again("served:app")[0]) == "brand new"
    with pytest.raises(DeclarationError, match=f"no module 'gone' in {tmp_path} nor"):
        modules.load_again("gone:app")
