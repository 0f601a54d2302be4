"""Everything that happens around a user's code, in whichever worker it runs.

``declared`` looks at a handler where it is declared, ``named`` finds it again in a fresh
interpreter, ``call`` is what it is given, ``replies`` encodes what it returns, ``running`` puts
these together.  ``forms`` is a posted form as a handler gets it, and ``uploads`` a file of it:
``formtypes`` tells its type and charset, ``urlencoded`` and ``multiparts`` read it,
``formbounds`` keeps what they read, and ``formplaces`` says where it is wrong.  Nothing here
imports Twisted or knows a pool.
"""
