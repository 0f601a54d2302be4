"""Finding a handler again, by name, in a fresh interpreter."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deferpost.errors import DeclarationError
from deferpost.handlers.named import SCRIPT_MODULE, check_reference, load, reference
from deferpost.model import HandlerRef

HERE = __name__


def plain(call: Any) -> bytes:
    return b"plain"


def logged(function: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """A decorator as people write them: the result has the name of the function."""

    @functools.wraps(function)
    def wrapper(call: Any) -> bytes:
        return function(call)

    return wrapper


@logged
def decorated(call: Any) -> bytes:
    return b"decorated"


def replaced(call: Any) -> bytes:
    return b"replaced"


#: A handler that was declared before another decorator took its name.
before_replacement = replaced
globals()["replaced"] = logged(replaced)


def removed(call: Any) -> bytes:
    return b"removed"


before_removal = removed
del removed


class Handler:
    """A handler that is built once per worker."""

    def __call__(self, call: Any) -> bytes:
        return b""

    def method(self, call: Any) -> bytes:
        return b""

    @staticmethod
    def static(call: Any) -> bytes:
        return b""

    @classmethod
    def of_class(cls, call: Any) -> bytes:
        return b""

    class Inner:
        """A class inside another."""

        def __call__(self, call: Any) -> bytes:
            return b""


nameless = lambda call: b""  # noqa: E731 (a handler as some write it)


def make_closure() -> Callable[[Any], bytes]:
    def inner(call: Any) -> bytes:
        return b""

    return inner


def pretend_main(
    monkeypatch: pytest.MonkeyPatch, spec: ModuleSpec | None, file: str | None
) -> tuple[ModuleType, Callable[[Any], bytes]]:
    """A program that was just started, with one handler."""
    main = ModuleType("__main__")
    main.__spec__ = spec
    if file is not None:
        main.__file__ = file

    def render(call: Any) -> bytes:
        return b""

    render.__module__ = "__main__"
    render.__qualname__ = "render"
    main.render = render  # type: ignore[attr-defined]  # as a program defines it
    monkeypatch.setitem(sys.modules, "__main__", main)
    return main, render


@pytest.mark.parametrize(
    ("handler", "qualname"),
    [
        (plain, "plain"),
        (decorated, "decorated"),
        (Handler, "Handler"),
        (Handler.Inner, "Handler.Inner"),
        (Handler.static, "Handler.static"),
    ],
)
def test_there_and_back(handler: Any, qualname: str) -> None:
    """A function or a class of a module is found again, wherever in the module it is."""
    ref = reference("/a", handler)
    assert ref == HandlerRef("/a", HERE, qualname)
    check_reference(ref, handler)
    assert load(ref) is handler


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (nameless, "it is a lambda, which has no name"),
        (make_closure(), "it is defined inside a function"),
        (Handler().method, "it is bound to an object, which stays behind in this process"),
        (Handler.of_class, "it is bound to an object"),
        (functools.partial(plain), "it is an object without a name of its own in a module"),
        (Handler(), "it is an object without a name of its own in a module"),
    ],
)
def test_without_a_name(handler: Any, why: str) -> None:
    """What no import would find is refused where it is declared, with a way out."""
    with pytest.raises(DeclarationError) as caught:
        reference("/a", handler)
    assert f"cannot run in a process pool: {why}" in str(caught.value)
    assert "define it at the top level of a module, or use pool='thread'" in str(caught.value)


@pytest.mark.parametrize("handler", [before_replacement, before_removal])
def test_name_that_leads_elsewhere(handler: Any) -> None:
    """A handler whose name another decorator took, or nobody has, is refused with a hint."""
    ref = reference("/a", handler)
    with pytest.raises(DeclarationError, match="leads to something else") as caught:
        check_reference(ref, handler)
    assert "put the route's decorator outermost" in str(caught.value)


def test_name_that_leads_nowhere_says_so() -> None:
    """The refusal shows what the name leads to."""
    with pytest.raises(DeclarationError, match=r"\(nothing\)"):
        check_reference(reference("/a", before_removal), before_removal)
    with pytest.raises(DeclarationError, match=r"\(<function replaced at 0x"):
        check_reference(reference("/a", before_replacement), before_replacement)


def test_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler of a script is found by the file of the script."""
    _, render = pretend_main(monkeypatch, None, "/srv/app.py")
    ref = reference("/a", render)
    assert ref == HandlerRef("/a", SCRIPT_MODULE, "render", "/srv/app.py")
    check_reference(ref, render)


def test_folder_with_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder or an archive that is run (``python folder``) is found by its file, too."""
    spec = ModuleSpec("__main__", None)
    _, render = pretend_main(monkeypatch, spec, "/srv/app/__main__.py")
    assert reference("/a", render).path == "/srv/app/__main__.py"


@pytest.mark.parametrize("name", ["app", "package.app", "package.__main__"])
def test_module_that_is_run(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A module that is run with ``python -m`` is found by its own name."""
    _, render = pretend_main(monkeypatch, ModuleSpec(name, None), "/srv/app.py")
    ref = reference("/a", render)
    assert ref == HandlerRef("/a", name, "render")
    check_reference(ref, render)


def test_interactive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that was typed at the prompt has no file, and is refused."""
    _, render = pretend_main(monkeypatch, None, None)
    with pytest.raises(DeclarationError, match="in __main__, which has no file to import again"):
        reference("/a", render)


def test_script_that_changed_its_mind(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a script, too, a name that leads elsewhere is noticed."""
    main, render = pretend_main(monkeypatch, None, "/srv/app.py")
    ref = reference("/a", render)
    main.render = None  # type: ignore[attr-defined]  # as a program can
    with pytest.raises(DeclarationError, match="leads to something else"):
        check_reference(ref, render)


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a script, which may be imported and is forgotten afterwards."""
    # So that the fixture takes away what the test adds.
    monkeypatch.setitem(sys.modules, SCRIPT_MODULE, ModuleType(SCRIPT_MODULE))
    del sys.modules[SCRIPT_MODULE]
    return tmp_path / "app.py"


def test_load_script(script: Path) -> None:
    """A worker imports a script under another name, so that it does not start a second time."""
    script.write_text(
        "import dataclasses\n"
        "assert __name__ != '__main__'\n"
        "@dataclasses.dataclass\n"
        "class Size:\n"
        "    width: int\n"
        "def render(call):\n"
        "    return Size(1)\n"
    )
    render = load(HandlerRef("/a", SCRIPT_MODULE, "render", str(script)))
    assert render(None) == sys.modules[SCRIPT_MODULE].Size(1)


def test_load_script_once(script: Path) -> None:
    """Handlers of one script share its globals: it is imported once."""
    script.write_text("state = []\ndef a(call): return state\ndef b(call): return state\n")
    a, b = (load(HandlerRef("/a", SCRIPT_MODULE, name, str(script))) for name in "ab")
    assert a(None) is b(None)


def test_load_script_that_fails(script: Path) -> None:
    """A script that raises is as if it had never been imported: the next try tells the same."""
    script.write_text("raise ValueError('no model')\n")
    ref = HandlerRef("/a", SCRIPT_MODULE, "render", str(script))
    for _ in range(2):
        with pytest.raises(ValueError, match="no model"):
            load(ref)
    assert SCRIPT_MODULE not in sys.modules


def test_load_what_is_no_script(script: Path) -> None:
    """A file that Python would not import is refused by its name."""
    path = str(script.with_suffix(".txt"))
    with pytest.raises(DeclarationError, match=r"app\.txt cannot be imported"):
        load(HandlerRef("/a", SCRIPT_MODULE, "render", path))


def test_load_missing_name(script: Path) -> None:
    """A module without the handler is named, with the route that wants it."""
    script.write_text("")
    with pytest.raises(DeclarationError, match=r"app\.py has no render, which serves /a"):
        load(HandlerRef("/a", SCRIPT_MODULE, "render", str(script)))
    with pytest.raises(DeclarationError, match=rf"^{HERE} has no Handler\.Other, which serves /a"):
        load(HandlerRef("/a", HERE, "Handler.Other"))


def test_load_missing_module() -> None:
    """A module that is not there fails as its import does."""
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        load(HandlerRef("/a", "no_such_module", "render"))
