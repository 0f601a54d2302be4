"""HTTP/1.1 as the daemon speaks it: a site whose channel parses with llhttp and bounds everything.

:mod:`~deferpost.wire.site` is what one uses; a connection is a
:mod:`~deferpost.wire.channel`, which feeds :mod:`~deferpost.wire.parsing`, asks
:mod:`~deferpost.wire.rules` and writes through :mod:`~deferpost.wire.outgoing`.
"""
