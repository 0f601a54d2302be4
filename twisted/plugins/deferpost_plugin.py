"""What ``twistd`` finds: the name of the daemon, and the module that knows the rest.

It imports nothing of deferpost, so that ``twistd --help`` stays quick.
"""

from twisted.application.service import ServiceMaker

deferpost = ServiceMaker(
    "deferpost",
    "deferpost.tap",
    "Slow Python work behind an HTTP POST, off the reactor thread.",
    "deferpost",
)
