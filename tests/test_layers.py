"""Who may import whom in deferpost, read from the syntax tree, and what a worker may load.

:data:`LAYERS` places every module.  :func:`breaks` judges a tree of modules; it is tried on small
trees of its own first, since a check that never fails shows nothing.
"""

from __future__ import annotations

import ast
import enum
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


class Layer(enum.IntEnum):
    """A layer imports only what is below it."""

    VOCABULARY = 0
    RULES = 1
    MECHANISMS = 2
    COORDINATION = 3
    EDGES = 4
    ASSEMBLY = 5
    ASIDE = 6


ROOT = "deferpost"

#: Every module, or package with all that is in it, by its name below ``deferpost``.
LAYERS: Mapping[Layer, frozenset[str]] = {
    Layer.VOCABULARY: frozenset({"_version", "errors", "fields", "interfaces", "model", "records"}),
    Layer.RULES: frozenset(
        {"admission", "backlog", "exchanges", "ids", "jobs", "lifecycle", "tally", "tracing"}
        | {"eventstream", "idempotency", "prefer", "progress"}
        | {"credentials", "digests", "replays", "signatures", "structured"}
        | {"recycling"}
        | {"defaults", "keys", "settings", "sources", "tomlplaces", "units"}
    ),
    Layer.MECHANISMS: frozenset(
        {"arriving", "bodies", "handlers", "joblog", "jsonlog", "metrics", "pools", "store"}
        | {"webhooks", "wire"}
    ),
    Layer.COORDINATION: frozenset({"dispatch", "keeping", "recording"}),
    Layer.EDGES: frozenset({"web"}),
    Layer.ASSEMBLY: frozenset(
        {ROOT, "app", "loading", "mount", "service", "tap"}
        | {"listening", "logs", "observing", "reload", "runtime", "systemd", "versions"}
        | {"authentication", "overseeing"}
    ),
    Layer.ASIDE: frozenset({"client", "testing"}),
}
LAYER_OF = {unit: layer for layer, units in LAYERS.items() for unit in units}

#: Inside these, modules may import each other, as long as loading them never goes in a circle:
#: what a function imports when it is called (as ``App.resource`` does) closes none.
ACYCLIC = {Layer.VOCABULARY, Layer.RULES, Layer.COORDINATION, Layer.EDGES, Layer.ASSEMBLY}

#: The one importer that may reach across mechanisms, and what it reaches for.
ACROSS = {("deferpost.pools.child", "handlers")}

#: Rules decide; they do not wait, and they take the time as an argument.
NOT_IN_RULES = ("threading", "time", "twisted")

#: Everything else is given the reactor that it works with.
REACTOR = "twisted.internet.reactor"
PICKS_THE_REACTOR = {"mount", "service", "tap"}

#: Dependencies that are optional to somebody, and so have one door each; with those units, of which
#: each may have one of its own.
ONE_DOOR: Mapping[str, frozenset[str]] = {
    "distributed": frozenset(),
    "httptools": frozenset(),
    "multipart": frozenset(),
    "prometheus_client": frozenset(),
    "pytest": frozenset(),
    "treq": frozenset({"client", "testing", "webhooks"}),
}


class Module(NamedTuple):
    """A module of the tree under judgement."""

    path: str
    source: str

    @property
    def name(self) -> str:
        """Its dotted name."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def package(self) -> str:
        """The package that its relative imports start from."""
        return self.name if self.path.endswith("/__init__.py") else self.name.rpartition(".")[0]


class Import(NamedTuple):
    """One import, at one line, of one name."""

    importer: Module
    line: int
    target: str
    put_off: bool

    def __str__(self) -> str:
        return f"{self.importer.path}:{self.line}: {self.importer.name} imports {self.target}"

    def reaches(self, name: str) -> bool:
        """Whether what is imported is ``name``, or something in it."""
        return self.target == name or self.target.startswith(f"{name}.")


def read_tree(root: Path) -> list[Module]:
    """Every module of the package whose directory is ``root``."""
    return [
        Module(path.relative_to(root.parent).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted(root.rglob("*.py"))
    ]


def tree_of(**sources: str) -> list[Module]:
    """A small tree: ``web__post="..."`` is ``deferpost/web/post.py``, ``__init__`` is the root."""
    return [
        Module(f"{ROOT}/{name if name == '__init__' else name.replace('__', '/', 1)}.py", source)
        for name, source in sources.items()
    ]


def names_type_checking(test: ast.expr) -> bool:
    """Whether a condition is ``TYPE_CHECKING`` or ``typing.TYPE_CHECKING``."""
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def nodes_at_run_time(node: ast.AST, put_off: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """``node`` and all below it, but for what only type checkers read.

    Each with whether it is put off until a function is called.
    """
    yield node, put_off
    put_off = put_off or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    below: list[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.If):
        if names_type_checking(node.test):
            below = list(node.orelse)
        elif isinstance(node.test, ast.UnaryOp) and names_type_checking(node.test.operand):
            below = list(node.body)
    for child in below:
        yield from nodes_at_run_time(child, put_off)


def targets(node: ast.AST, package: str) -> Iterator[str]:
    """What an import statement names, in full; other nodes name nothing."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        start = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        origin = [*start, node.module] if node.module else start
        yield from (".".join([*origin, alias.name]) for alias in node.names)


def resolve(target: str, known: set[str]) -> str:
    """The module that ``target`` is or is in; a foreign name stays as it is."""
    while target.startswith(f"{ROOT}.") and target not in known:
        target = target.rpartition(".")[0]
    return target


def imports_of(module: Module, known: set[str]) -> Iterator[Import]:
    """What a module imports when it runs, wherever in it the statement stands."""
    for node, put_off in nodes_at_run_time(ast.parse(module.source, module.path)):
        for target in targets(node, module.package):
            yield Import(module, getattr(node, "lineno", 0), resolve(target, known), put_off)


def unit_of(name: str) -> str:
    """The name by which :data:`LAYERS` knows a module."""
    return ROOT if name == ROOT else name.split(".")[1]


def is_ours(target: str) -> bool:
    """Whether a target is a module of the tree."""
    return target == ROOT or target.startswith(f"{ROOT}.")


def layer_break(found: Import) -> str | None:
    """What is wrong with an import of one of our modules by another, if anything is."""
    ours, theirs = unit_of(found.importer.name), unit_of(found.target)
    if ours == theirs or theirs not in LAYER_OF:
        return None
    layer, other = LAYER_OF[ours], LAYER_OF[theirs]
    if other is Layer.ASIDE:
        return f"{found}: nothing imports what stands aside"
    if layer is Layer.ASIDE:
        if any(part.startswith("_") for part in found.target.split(".")):
            return f"{found}: what stands aside imports public modules only"
        return None
    if other > layer:
        return f"{found}: {layer.name} is below {other.name}"
    if other == layer and layer not in ACYCLIC and (found.importer.name, theirs) not in ACROSS:
        return f"{found}: {layer.name} do not import each other"
    return None


def use_break(found: Import) -> str | None:
    """What is wrong with an import from outside, if anything is."""
    unit = unit_of(found.importer.name)
    if LAYER_OF[unit] is Layer.RULES and any(found.reaches(name) for name in NOT_IN_RULES):
        return f"{found}: RULES know no reactor, no clock and no thread"
    if found.reaches(REACTOR) and unit not in PICKS_THE_REACTOR:
        return f"{found}: only {', '.join(sorted(PICKS_THE_REACTOR))} may pick the reactor"
    return None


def circles(imports: list[Import]) -> Iterator[str]:
    """A circle of imports for every layer that has one and must not."""
    graphs: dict[Layer, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for found in imports:
        if found.put_off:
            continue
        layer = LAYER_OF[unit_of(found.importer.name)]
        same = is_ours(found.target) and LAYER_OF.get(unit_of(found.target)) is layer
        if same and layer in ACYCLIC and found.target != found.importer.name:
            graphs[layer][found.importer.name].add(found.target)
    for layer, graph in sorted(graphs.items()):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            yield f"{layer.name} import in a circle: {' <- '.join(error.args[1])}"


def extra_doors(imports: list[Import]) -> Iterator[str]:
    """Each optional dependency that is imported in more than one place."""
    for name, with_their_own in ONE_DOOR.items():
        doors: dict[str, set[str]] = defaultdict(set)
        for found in imports:
            if found.reaches(name):
                unit = unit_of(found.importer.name)
                aside = LAYER_OF[unit] is Layer.ASIDE
                whose = unit if unit in with_their_own else ""
                doors[whose].add(unit if aside else found.importer.name)
        for places in map(sorted, doors.values()):
            if len(places) > 1:
                yield f"{name} is imported in {' and in '.join(places)}: one place has to do"


def breaks(tree: list[Module]) -> list[str]:
    """Every break of the rules in a tree, one sentence each; an empty list is a good tree."""
    unplaced = [module for module in tree if unit_of(module.name) not in LAYER_OF]
    known = {module.name for module in tree}
    imports = [
        found for module in tree if module not in unplaced for found in imports_of(module, known)
    ]
    return [
        *(f"{module.path} is in no layer: place it in LAYERS" for module in unplaced),
        *filter(None, (layer_break(found) for found in imports if is_ours(found.target))),
        *filter(None, (use_break(found) for found in imports)),
        *circles(imports),
        *extra_doors(imports),
    ]


def test_deferpost_keeps_its_layers() -> None:
    """A module of deferpost imports only what its layer may."""
    tree = read_tree(CHECKOUT / ROOT)
    assert tree
    assert breaks(tree) == []


def test_a_worker_loads_no_twisted() -> None:
    """A worker process, and a script that declares an app, load neither Twisted nor zope."""
    program = (
        "import sys\n"
        "import deferpost\n"
        "from deferpost import App, Call, HTTPError, ProcessPool, Reply, ThreadPool\n"
        "import deferpost.handlers, deferpost.pools.child\n"
        "print(*sorted(n for n in sys.modules if n.split('.')[0] in ('twisted', 'zope')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")


GOOD = {
    "a lower layer": tree_of(
        errors="", web__post="from deferpost.errors import HTTPError\nimport deferpost.errors"
    ),
    "the same layer": tree_of(errors="", model="from deferpost import errors"),
    "the same layer, in a circle that a function puts off": tree_of(
        app="class App:\n    def resource(self):\n        import deferpost.mount",
        mount="from deferpost.app import App",
    ),
    "the same package, in a circle": tree_of(
        pools____init__="", pools__a="from .b import x", pools__b="from . import a"
    ),
    "what only type checkers read": tree_of(
        service="",
        errors="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import deferpost.service",
        model="import typing\n"
        "if not typing.TYPE_CHECKING:\n    pass\nelse:\n    import deferpost.service",
    ),
    "the child process and handlers": tree_of(
        handlers__run="", pools__child="from deferpost.handlers.run import run"
    ),
    "aside, all that is public": tree_of(
        __init__="",
        web__post="",
        testing="from deferpost import App, web\nimport deferpost.web.post",
    ),
    "the reactor in assembly": tree_of(
        tap="from twisted.internet import reactor",
        service="import twisted.internet.reactor",
        mount="def start():\n    from twisted.internet import reactor",
    ),
    "other names of the reactor's package": tree_of(
        dispatch="from twisted.internet.defer import Deferred\n"
        "from twisted.internet import interfaces",
    ),
    "one door inside one package aside": tree_of(
        client__a="import treq", client__b="from treq.client import HTTPClient"
    ),
    "a door for each of those that may have their own": tree_of(
        client__a="import treq", testing__a="import treq", webhooks__a="import treq"
    ),
    "a foreign name that begins like a forbidden one": tree_of(
        lifecycle="import timeit\nfrom twistedish import x"
    ),
}


@pytest.mark.parametrize("tree", GOOD.values(), ids=GOOD)
def test_what_is_allowed_is_not_reported(tree: list[Module]) -> None:
    """The check is silent about a tree that keeps the rules."""
    assert breaks(tree) == []


BAD = {
    "a higher layer": (
        tree_of(web__post="", errors="\n\nfrom deferpost.web.post import render"),
        "deferpost/errors.py:3: deferpost.errors imports deferpost.web.post: "
        "VOCABULARY is below EDGES",
    ),
    "a higher layer, as a name of the root": (
        tree_of(__init__="", dispatch="", errors="from deferpost import dispatch"),
        "deferpost/errors.py:1: deferpost.errors imports deferpost.dispatch: "
        "VOCABULARY is below COORDINATION",
    ),
    "the root, for a name that it lends": (
        tree_of(__init__="", dispatch="from deferpost import App"),
        "deferpost/dispatch.py:1: deferpost.dispatch imports deferpost: "
        "COORDINATION is below ASSEMBLY",
    ),
    "a higher layer, relatively": (
        tree_of(dispatch="", pools__a="from ..dispatch import submit"),
        "deferpost/pools/a.py:1: deferpost.pools.a imports deferpost.dispatch: "
        "MECHANISMS is below COORDINATION",
    ),
    "a higher layer, relatively from a package": (
        tree_of(dispatch="", pools____init__="from .. import dispatch"),
        "deferpost/pools/__init__.py:1: deferpost.pools imports deferpost.dispatch: "
        "MECHANISMS is below COORDINATION",
    ),
    "a higher layer, inside a function": (
        tree_of(service="", web__post="def f():\n    import deferpost.service"),
        "deferpost/web/post.py:2: deferpost.web.post imports deferpost.service: "
        "EDGES is below ASSEMBLY",
    ),
    "a higher layer, where type checkers do not look": (
        tree_of(
            service="",
            model="from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    pass\nelse:\n    import deferpost.service",
        ),
        "deferpost/model.py:5: deferpost.model imports deferpost.service: "
        "VOCABULARY is below ASSEMBLY",
    ),
    "another mechanism": (
        tree_of(store__a="", wire__b="import deferpost.store.a"),
        "deferpost/wire/b.py:1: deferpost.wire.b imports deferpost.store.a: "
        "MECHANISMS do not import each other",
    ),
    "handlers, by another module of pools": (
        tree_of(handlers__run="", pools__threads="import deferpost.handlers.run"),
        "deferpost/pools/threads.py:1: deferpost.pools.threads imports deferpost.handlers.run: "
        "MECHANISMS do not import each other",
    ),
    "another mechanism, by the child process": (
        tree_of(metrics="", pools__child="import deferpost.metrics"),
        "deferpost/pools/child.py:1: deferpost.pools.child imports deferpost.metrics: "
        "MECHANISMS do not import each other",
    ),
    "what stands aside": (
        tree_of(testing="", tap="import deferpost.testing"),
        "deferpost/tap.py:1: deferpost.tap imports deferpost.testing: "
        "nothing imports what stands aside",
    ),
    "one that stands aside by the other": (
        tree_of(client__a="", testing="import deferpost.client.a"),
        "deferpost/testing.py:1: deferpost.testing imports deferpost.client.a: "
        "nothing imports what stands aside",
    ),
    "what is private, from aside": (
        tree_of(web___post="", testing="import deferpost.web._post"),
        "deferpost/testing.py:1: deferpost.testing imports deferpost.web._post: "
        "what stands aside imports public modules only",
    ),
    "a circle": (
        tree_of(lifecycle="import deferpost.jobs", jobs="from . import lifecycle"),
        "RULES import in a circle: deferpost.lifecycle <- deferpost.jobs <- deferpost.lifecycle",
    ),
    "a circle inside web": (
        tree_of(web__a="from .b import x", web__b="from .a import y"),
        "EDGES import in a circle: deferpost.web.a <- deferpost.web.b <- deferpost.web.a",
    ),
    "Twisted, in a rule": (
        tree_of(admission="from twisted.internet.defer import Deferred"),
        "deferpost/admission.py:1: deferpost.admission imports twisted.internet.defer.Deferred: "
        "RULES know no reactor, no clock and no thread",
    ),
    "the time, in a rule": (
        tree_of(lifecycle="from time import monotonic"),
        "deferpost/lifecycle.py:1: deferpost.lifecycle imports time.monotonic: "
        "RULES know no reactor, no clock and no thread",
    ),
    "threads, in a rule": (
        tree_of(jobs="import threading as t"),
        "deferpost/jobs.py:1: deferpost.jobs imports threading: "
        "RULES know no reactor, no clock and no thread",
    ),
    "the reactor": (
        tree_of(web__post="def f():\n    from twisted.internet import defer, reactor"),
        "deferpost/web/post.py:2: deferpost.web.post imports twisted.internet.reactor: "
        "only mount, service, tap may pick the reactor",
    ),
    "two doors for one dependency": (
        tree_of(handlers__forms="import multipart", bodies="from multipart import MultipartParser"),
        "multipart is imported in deferpost.bodies and in deferpost.handlers.forms: "
        "one place has to do",
    ),
    "two doors, one of them aside": (
        tree_of(testing__a="import pytest", testing__b="import pytest", web__post="import pytest"),
        "pytest is imported in deferpost.web.post and in testing: one place has to do",
    ),
    "two doors of one that may have its own": (
        tree_of(client__a="import treq", webhooks__a="import treq", webhooks__b="import treq"),
        "treq is imported in deferpost.webhooks.a and in deferpost.webhooks.b: one place has to do",
    ),
    "two doors of those that may not": (
        tree_of(client__a="import treq", dispatch="import treq", web__post="import treq"),
        "treq is imported in deferpost.dispatch and in deferpost.web.post: one place has to do",
    ),
    "a module without a place": (
        tree_of(helpers="import deferpost.service"),
        "deferpost/helpers.py is in no layer: place it in LAYERS",
    ),
    "a package without a place": (
        tree_of(queues____init__=""),
        "deferpost/queues/__init__.py is in no layer: place it in LAYERS",
    ),
}


@pytest.mark.parametrize(("tree", "report"), BAD.values(), ids=BAD)
def test_what_is_forbidden_is_reported(tree: list[Module], report: str) -> None:
    """The check names the break, and its place."""
    found = breaks(tree)
    # A circle may be told from any of its members.
    if "in a circle" in report:
        head, _, members = report.partition(": ")
        assert [line.partition(": ")[0] for line in found] == [head]
        assert set(found[0].partition(": ")[2].split(" <- ")) == set(members.split(" <- "))
    else:
        assert found == [report]


def test_the_tree_is_read_from_disk(tmp_path: Path) -> None:
    """The check sees every module of a package, those of packages in it included."""
    web = tmp_path / ROOT / "web"
    web.mkdir(parents=True)
    (tmp_path / ROOT / "__init__.py").write_text("")
    (web / "__init__.py").write_text("from deferpost import tap")
    (tmp_path / ROOT / "tap.py").write_text("")
    tree = read_tree(tmp_path / ROOT)
    assert {module.name for module in tree} == {"deferpost", "deferpost.tap", "deferpost.web"}
    assert breaks(tree) == [
        "deferpost/web/__init__.py:1: deferpost.web imports deferpost.tap: EDGES is below ASSEMBLY"
    ]
