"""Stores of accepted jobs: what :class:`deferpost.interfaces.IJobStore` promises, kept.

``sqlite`` has the one that comes with deferpost, in a directory of its own; ``memory`` has one for
tests.  ``changes`` decides what becomes of a record, for both; ``ids`` makes ids.

The others belong to ``sqlite``.  ``directory`` opens it, with ``lock`` and ``schema``; ``errands``
hands to the threads of ``writer`` and ``lanes`` what is asked for, in the order of ``turns``;
``changing``, ``queries`` and ``rows`` speak SQL; ``files`` keeps large bodies, ``failures`` says
what went wrong.
"""
