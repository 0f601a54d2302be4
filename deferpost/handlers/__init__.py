"""Everything that happens around a user's code, in whichever worker it runs.

``declared`` looks at a handler where it is declared, ``named`` finds it again in a fresh
interpreter, ``call`` is what it is given, ``forms`` reads posted forms, ``replies`` encodes what
it returns, ``running`` puts these together.  Nothing here imports Twisted or knows a pool.
"""
