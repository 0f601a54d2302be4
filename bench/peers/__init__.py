"""The other servers, each in the form that its own documentation gives, with the access log off.

They run with the packages of ``requirements.txt``, which ``make`` installs beside the project's own
environment and not in it; so mypy knows nothing of some that they import.
"""
