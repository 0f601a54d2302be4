"""The bounds of a site: how much, how fast and how long a client may."""

from __future__ import annotations

import attrs

__all__ = ["Limits"]


@attrs.frozen(kw_only=True)
class Limits:
    """What a site permits to each of its connections.  Times are in seconds, sizes in bytes.

    :ivar max_head: request line and header fields together; also the trailers of a chunked body.
    :ivar max_target: the request target alone.
    :ivar max_headers: header fields of one request.
    :ivar max_chunk_line: the line before a chunk, with its extensions.
    :ivar max_body: a body that no resource has said a limit for; None for no limit.
    :ivar max_pipelined: what is read ahead while a response is pending.
    :ivar head_timeout: for a whole head, from its first byte.
    :ivar idle_timeout: without a request; also before the first one.
    :ivar min_body_rate: bytes per second that a body has to come with on the average of each
        ``body_window``; 0 for any.
    :ivar body_window: over which ``min_body_rate`` is measured.
    :ivar write_timeout: for which a client may take nothing of what is written to it.
    :ivar linger: for which a connection that is given up is read and dropped, so that its client
        gets the answer and not a reset.
    :ivar linger_bytes: which are dropped at most.
    :ivar max_connections: open at once.
    :ivar max_connections_per_client: open at once from one address; 0 for any.
    :ivar tcp_keepalive: of silence, after which the system probes the client; 0 for never.
    :ivar tcp_user_timeout: for which sent data may stay unacknowledged (RFC 5482), or
        ``write_timeout`` if that is longer; 0 for the system's own.
    :ivar require_host: whether a request in HTTP/1.1 needs its ``Host`` (RFC 9112, section 3.2).
    """

    max_head: int = 16 * 1024
    max_target: int = 8 * 1024
    max_headers: int = 100
    max_chunk_line: int = 1024
    max_body: int | None = 16 * 1024 * 1024
    max_pipelined: int = 64 * 1024
    head_timeout: float = 15.0
    idle_timeout: float = 60.0
    min_body_rate: int = 240
    body_window: float = 10.0
    write_timeout: float = 30.0
    linger: float = 5.0
    linger_bytes: int = 64 * 1024 * 1024
    max_connections: int = 10_000
    max_connections_per_client: int = 0
    tcp_keepalive: float = 60.0
    tcp_user_timeout: float = 30.0
    require_host: bool = True
