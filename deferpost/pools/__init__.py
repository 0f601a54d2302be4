"""Where jobs run.

``plans`` describes pools, ``threads``, ``processes`` and ``reactor`` are the started ones,
``streams`` carries chunks out of threads, ``deadlines`` ends what runs too long.  Of a worker
process, ``spawn`` starts it, ``worker`` is its reactor side, ``output`` reads what it prints,
``frames`` is the language of both sides and ``child`` is the program that it runs.
"""
