"""Loading what the daemon serves: ``module:app`` or ``module:function``, at first and anew.

It decides which modules are the user's own, of which there is a new copy at each reload, and which
are libraries, of which there is one.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import sys
import sysconfig
import traceback
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from deferpost.app import App
from deferpost.errors import DeclarationError

__all__ = ["Modules", "is_own", "load_app"]


#: Folders of Python's own modules, each with a separator at its end.
_PYTHON = tuple(
    os.path.join(os.path.realpath(sysconfig.get_path(name)), "")
    for name in ("stdlib", "platstdlib")
)

#: Names of folders in which libraries are installed.
_LIBRARIES = frozenset({"site-packages", "dist-packages"})


def load_app(name: str, folder: str | None = None) -> App:
    """Import an app, from a folder too.

    :param name: ``module:attribute``; the attribute is an :class:`App`, or a handler, which is
        then served at ``/``.
    :param folder: the folder; the current one if not given.
    :raises deferpost.errors.DeclarationError: it cannot be loaded, with the user's own traceback
        where it is their module that failed.
    """
    module_name, separator, attribute = name.partition(":")
    if not separator or not module_name or not attribute:
        raise DeclarationError(
            f"{name!r} does not name an app: write module:attribute, such as examples.documents:app"
        )
    here = os.getcwd() if folder is None else folder
    if here not in sys.path:
        sys.path.insert(0, here)
    found: Any = _import(module_name, here)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise DeclarationError(
                f"the module {module_name} has no {attribute!r}{_apps_in(found)}"
            ) from None
    if isinstance(found, App):
        if not found.routes:
            raise DeclarationError(f"{name} has no routes; declare one with @app.post(path)")
        return found
    if not callable(found):
        raise DeclarationError(
            f"{name} is neither an App nor a handler, but of the type {type(found).__name__}"
        )
    app = App()
    app.post("/")(found)
    return app


class Modules:
    """The user's own modules: what was imported for the app from elsewhere than libraries are.

    For one thread at a time; other threads may import meanwhile.

    :param folder: from which the app is imported too.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._first = frozenset(sys.modules)  # there before any app: the program's

    def load_again(self, name: str) -> tuple[App, Mapping[str, ModuleType]]:
        """Import an app and all of the user's own modules anew.

        The modules that were there live on in the handlers that have them.

        :param name: see :func:`load_app`.
        :returns: the app, and the modules that were there, for :meth:`restore`.
        :raises deferpost.errors.DeclarationError: it cannot be loaded, and the modules are as they
            were.
        """
        package = name.partition(":")[0].partition(".")[0]
        before = {key: sys.modules[key] for key in self._own(package)}
        for key in before:
            del sys.modules[key]
        importlib.invalidate_caches()
        try:
            return load_app(name, self._folder), before
        except BaseException:
            self.restore(name, before)
            raise

    def restore(self, name: str, before: Mapping[str, ModuleType]) -> None:
        """Put back the modules that were there before :meth:`load_again`.

        Libraries that were imported meanwhile stay: many cannot be imported twice.

        :param name: the name of the app that was loaded.
        :param before: what :meth:`load_again` has returned.
        """
        for key in self._own(name.partition(":")[0].partition(".")[0]):
            sys.modules.pop(key, None)
        sys.modules.update(before)
        for key, module in before.items():
            parent, _, child = key.rpartition(".")
            if parent in sys.modules:
                setattr(sys.modules[parent], child, module)
        importlib.invalidate_caches()

    def _own(self, package: str) -> list[str]:
        """The names of the user's own modules that are imported now.

        :param package: the app's, which is the user's own wherever it is installed.
        """
        return [
            key
            for key, module in list(sys.modules.items())
            if key not in self._first and is_own(key, module, package)
        ]


def is_own(name: str, module: Any, package: str) -> bool:
    """Whether a module is the user's own, so that it is imported anew at a reload.

    :param name: its name.
    :param module: the module.
    :param package: the app's package, which is the user's own wherever it is installed.
    """
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("__main__", "deferpost", "twisted", "zope"):
        return False
    spec = getattr(module, "__spec__", None)
    if isinstance(getattr(spec, "loader", None), importlib.machinery.ExtensionFileLoader):
        return False  # most cannot be loaded twice
    if top == package:
        return True
    file = getattr(module, "__file__", None)
    places = [file] if file else list(getattr(module, "__path__", ()))
    return bool(places) and not any(map(_is_library, places))


def _is_library(path: str) -> bool:
    place = os.path.realpath(path)
    return place.startswith(_PYTHON) or not _LIBRARIES.isdisjoint(place.split(os.sep))


def _apps_in(module: Any) -> str:
    names = [
        key for key, value in getattr(module, "__dict__", {}).items() if isinstance(value, App)
    ]
    return f"; it has the App {', '.join(names)}" if names else ""


def _import(module_name: str, here: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except DeclarationError as error:
        raise DeclarationError(str(error), _users_part(error)) from None
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise DeclarationError(
                f"there is no module {module_name!r} in {here} nor on Python's path"
            ) from None
        raise _failed(module_name, error) from None
    except (Exception, SystemExit) as error:
        raise _failed(module_name, error) from None


def _failed(module_name: str, error: BaseException) -> DeclarationError:
    return DeclarationError(
        f"the module {module_name} does not import: {type(error).__name__}: {error}",
        _users_part(error),
    )


def _users_part(error: BaseException) -> str:
    """The traceback without our frames; what a declaration's error says is not repeated."""
    folders = (os.path.dirname(__file__), os.path.dirname(importlib.__file__))
    ours = (*(os.path.join(folder, "") for folder in folders), "<frozen importlib")
    report = traceback.TracebackException.from_exception(error)
    report.stack[:] = [frame for frame in report.stack if not frame.filename.startswith(ours)]
    if isinstance(error, DeclarationError):
        return "".join(report.stack.format())
    return "".join(report.format() if report.stack else report.format_exception_only())
