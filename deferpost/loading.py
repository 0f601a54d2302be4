"""Loading what the daemon serves: ``module:app`` or ``module:function``."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

from deferpost.app import App
from deferpost.errors import DeclarationError

__all__ = ["load_app"]


def load_app(name: str) -> App:
    """Import an app, from the current folder too.

    :param name: ``module:attribute``; the attribute is an :class:`App`, or a handler, which is
        then served at ``/``.
    :raises deferpost.errors.DeclarationError: it cannot be loaded, with the user's own traceback
        where it is their module that failed.
    """
    module_name, separator, attribute = name.partition(":")
    if not separator or not module_name or not attribute:
        raise DeclarationError(
            f"{name!r} does not name an app: write module:attribute, such as examples.documents:app"
        )
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    found: Any = _import(module_name)
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


def _apps_in(module: Any) -> str:
    names = [
        key for key, value in getattr(module, "__dict__", {}).items() if isinstance(value, App)
    ]
    return f"; it has the App {', '.join(names)}" if names else ""


def _import(module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except DeclarationError as error:
        raise DeclarationError(str(error), _users_part(error)) from None
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise DeclarationError(
                f"there is no module {module_name!r} in {os.getcwd()} nor on Python's path"
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
