"""optuna-dashboard on a study's database, for reading: pages that follow a search in a browser."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from autoctr.errors import UserError

if TYPE_CHECKING:
    from autoctr.search.study import Study

HOST = "127.0.0.1"
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Server(ThreadingMixIn, WSGIServer):
    """A thread per request: a browser asks for several things at once."""

    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """No line per request."""


@contextmanager
def dashboard(study: Study, port: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """A server for this machine only.

    Args:
        port: to listen at; 0 = any that is free.

    Yields: the study's address, and what answers requests until it is interrupted.

    Raises:
        UserError: without optuna-dashboard, or if the port is taken.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        raise UserError(
            "the dashboard needs optuna-dashboard; install it with: pip install 'autoctr[dashboard]'"
        ) from None
    if not 0 <= port <= 65535:
        raise UserError(f"--port is {port}; legal are 0 (any that is free) to 65535")
    logging.getLogger("optuna_dashboard").setLevel(logging.ERROR)
    try:
        server = make_server(HOST, port, _reading(wsgi(study.database._storage)), _Server, _Silent)
    except OSError as error:
        raise UserError(f"cannot listen at port {port} ({error.strerror}); choose another --port, or 0") from error
    with server:
        yield f"http://{HOST}:{server.server_port}/dashboard/studies/{study.database._study_id}", server.serve_forever


def _reading(application: Any) -> Application:
    """The application without what changes a study: a search relies on its trials."""

    def read(environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start("403 Forbidden", [("Content-Type", "application/json")])
            return [b'{"reason": "autoctr shows studies for reading only"}']
        answer: Iterable[bytes] = application(environment, start)
        return answer

    return read
