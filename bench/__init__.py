"""The benchmark: ``python -m bench`` measures deferpost beside other servers, in one run.

``__main__`` takes the options; ``workloads`` says what is measured, ``programs`` how each server is
started, ``clients`` holds what asks them, ``peers`` the other servers, which have an environment of
their own.
"""
