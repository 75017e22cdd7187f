"""A live report over HTTP: on loopback for whoever sits at this machine, elsewhere for whoever has the token."""

import hmac
import http.server
import json
import secrets
import socket
import socketserver
import threading
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from deepmlf.addresses import is_loopback, refusal_of_address
from deepmlf.analysis.report.live import LivePage

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_STALLED_SECONDS = 30  # a client that sends nothing for so long is left


class ReportServer:
    """Serves a live page from threads of its own, for as long as it is open.

    A page of another site may make a browser that trusts this machine ask here under a name of its own (DNS
    rebinding); so on loopback the request's Host must be one of loopback. Elsewhere, or if one is given, every request
    must carry the token.

    Args:
        page: What is served; it is kept up to date meanwhile.
        host: Address to listen on.
        port: 0 takes a free one.
        token: What requests must carry; None makes one where `host` is not loopback.

    Raises:
        SearchError: If host and port cannot be listened on.
    """

    def __init__(self, page: LivePage, host: str = "127.0.0.1", port: int = 0, token: str | None = None) -> None:
        self.page, is_here = page, is_loopback(host)
        self.token = token or (None if is_here else secrets.token_urlsafe(24))
        self._hosts = {*_LOOPBACK_NAMES, host.lower()} if is_here else None
        try:
            self._server = _server_class(host)((host, port), self._handler())
        except (OSError, OverflowError) as error:
            raise refusal_of_address(error, host, port) from None
        named = host if is_here else socket.gethostname() if host in ("0.0.0.0", "::") else host
        authority = f"[{named}]" if ":" in named else named
        query = f"?token={quote(self.token, safe='')}" if self.token else ""
        self.url = f"http://{authority}:{self._server.server_address[1]}/{query}"
        self._ended = threading.Event()

    def __enter__(self) -> "ReportServer":
        for work in (self._server.serve_forever, lambda: self.page.keep(self._ended)):
            threading.Thread(target=work, daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def wait(self) -> None:
        """Never return; Ctrl-C raises."""
        self._ended.wait()

    def refusal(self, host: str | None, path: str) -> tuple[HTTPStatus, str] | None:
        """Why a request is not answered; None if it is.

        Args:
            host: Its Host header.
            path: What it asks for, with its query.
        """
        if self._hosts is not None and _name_of(host) not in self._hosts:
            return HTTPStatus.FORBIDDEN, "ask by the address that `deepmlf watch` has shown"
        given = parse_qs(urlsplit(path).query).get("token", [""])[-1]
        if self.token is not None and not hmac.compare_digest(given.encode(), self.token.encode()):
            return HTTPStatus.UNAUTHORIZED, "open the whole address that `deepmlf watch` has shown, its token included"
        return None

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        owner = self

        class Handler(_Handler):
            server_of_report = owner

        return Handler


class _Handler(http.server.BaseHTTPRequestHandler):
    server_of_report: ReportServer
    timeout = _STALLED_SECONDS
    server_version, sys_version = "deepmlf", ""

    def do_GET(self) -> None:
        refused = self.server_of_report.refusal(self.headers.get("Host"), self.path)
        if refused is not None:
            status, why = refused
            self._answer(f"{why}\n".encode(), "text/plain; charset=utf-8", status)
            return
        page = self.server_of_report.page
        match urlsplit(self.path).path:
            case "/":
                is_gzipped = "gzip" in self.headers.get("Accept-Encoding", "")
                report = page.report
                more = {"Content-Encoding": "gzip"} if is_gzipped else {}
                self._answer(report.gzipped if is_gzipped else report.html, "text/html; charset=utf-8", more=more)
            case "/version":
                state = {"version": page.report.version, "fault": page.fault}
                self._answer(json.dumps(state).encode(), "application/json")
            case "/favicon.ico":  # browsers ask for one, and complain of its absence
                self._answer(b"", "image/x-icon")
            case _:
                self._answer(b"there is only one page\n", "text/plain; charset=utf-8", HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET

    def _answer(
        self,
        body: bytes,
        kind: str,
        status: HTTPStatus = HTTPStatus.OK,
        *,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.send_response(status)
        fixed = {
            "Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "frame-ancestors 'none'",
        }  # fmt: skip
        for name, value in (fixed | dict(more)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            try:
                self.wfile.write(body)
            except ConnectionError:
                pass  # a browser that has gone on

    def log_message(self, *said: Any) -> None:
        """Nothing: requests carry the token."""


def _server_class(host: str) -> type[http.server.ThreadingHTTPServer]:
    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

        def server_bind(self) -> None:
            # The library's own one also looks for a name of the address, which may take seconds.
            socketserver.TCPServer.server_bind(self)
            self.server_name, self.server_port = host, self.socket.getsockname()[1]

        def handle_error(self, *of: Any) -> None:
            """Nothing: whoever watches reads this terminal, and it is the client that went away."""

    return Server


def _name_of(host: str | None) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host or ''}").hostname or ""
    except ValueError:
        return ""
