"""Finding a handler again, by name, in a fresh interpreter.

:func:`reference` makes the name where the handler is declared and refuses what has none;
:func:`load` follows it in the worker process.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from deferpost.errors import DeclarationError
from deferpost.handlers.declared import display_name
from deferpost.model import HandlerRef

__all__ = ["SCRIPT_MODULE", "check_reference", "load", "reference"]

#: The name under which a worker imports a script that was ``__main__`` in the parent.
SCRIPT_MODULE = "__deferpost_main__"


def reference(route: str, handler: Any) -> HandlerRef:
    """Where a fresh interpreter finds the handler.

    :param route: the name of the route.
    :param handler: the handler, a function or a class.
    :raises DeclarationError: it has no name that an import would find.
    """
    qualname = getattr(handler, "__qualname__", None)
    module = getattr(handler, "__module__", None)
    if not isinstance(qualname, str) or not isinstance(module, str):
        raise _refusal(handler, "it is an object without a name of its own in a module")
    if getattr(handler, "__self__", None) is not None:
        raise _refusal(handler, "it is bound to an object, which stays behind in this process")
    if "<lambda>" in qualname:
        raise _refusal(handler, "it is a lambda, which has no name")
    if "<locals>" in qualname:
        raise _refusal(handler, "it is defined inside a function")
    if module != "__main__":
        return HandlerRef(route, module, qualname)
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name and not spec.name.startswith("__"):
        return HandlerRef(route, spec.name, qualname)
    path = getattr(main, "__file__", None)
    if path is None:
        raise _refusal(handler, "it is defined in __main__, which has no file to import again")
    return HandlerRef(route, SCRIPT_MODULE, qualname, path)


def check_reference(ref: HandlerRef, handler: Any) -> None:
    """Check, after its module was imported, that the name leads to this very handler.

    :raises DeclarationError: it leads elsewhere, or nowhere.
    """
    module = sys.modules.get("__main__" if ref.path else ref.module)
    if ref.module not in sys.modules and not ref.path:
        module = sys.modules.get("__main__")
    found: Any = module
    for part in ref.qualname.split("."):
        found = getattr(found, part, None)
    if found is not handler:
        raise _refusal(
            handler,
            f"the name {ref.qualname} of its module leads to something else "
            f"({'nothing' if found is None else repr(found)}); put the route's decorator outermost",
        )


def load(ref: HandlerRef) -> Any:
    """Import the handler.  Called in the worker process, once at its start.

    :raises Exception: whatever the user's module raises when it is imported.
    :raises DeclarationError: the module has no such name.
    """
    found: Any = _import_script(ref.path) if ref.path else importlib.import_module(ref.module)
    for part in ref.qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise DeclarationError(
                f"{ref.path or ref.module} has no {ref.qualname}, which serves {ref.route}"
            ) from None
    return found


def _import_script(path: str) -> Any:
    if SCRIPT_MODULE in sys.modules:
        return sys.modules[SCRIPT_MODULE]
    spec = importlib.util.spec_from_file_location(SCRIPT_MODULE, path)
    if spec is None or spec.loader is None:
        raise DeclarationError(f"{path} cannot be imported: it is not a Python source file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[SCRIPT_MODULE] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[SCRIPT_MODULE]
        raise
    return module


def _refusal(handler: Any, why: str) -> DeclarationError:
    return DeclarationError(
        f"{display_name(handler)} cannot run in a process pool: {why}, and a worker process finds "
        "its handlers by name; define it at the top level of a module, or use pool='thread'"
    )
