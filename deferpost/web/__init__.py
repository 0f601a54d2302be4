"""The edges: the twisted.web resources.

``post`` is one route, ``tree`` an app of them, ``exchange`` writes the answer of one request,
``problems`` says what errors are in HTTP, ``respond`` writes short responses, ``health`` tells
whether the daemon lives and is ready, and ``site`` is the daemon's site with its access log.
"""
