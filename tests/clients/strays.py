"""A proxy that lets nothing through and notes what it was asked for: it should be nothing."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextmanager
def strays() -> Iterator[tuple[dict[str, str], set[str]]]:
    """Yield the variables that lead clients to the proxy, and what it was asked for so far.

    Java and Node.js do not heed such variables: what they send elsewhere is not seen.
    """
    asked: set[str] = set()

    class Refusal(socketserver.StreamRequestHandler):
        """Notes a request's first line and refuses it."""

        def handle(self) -> None:
            asked.add(" ".join(self.rfile.readline(1024).decode("latin-1").split()[:2]))
            self.wfile.write(_REFUSED)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusal) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
        around = {"no_proxy": "localhost,127.0.0.1", "NO_PROXY": "localhost,127.0.0.1"}
        yield dict.fromkeys(names, url) | around, asked
        server.shutdown()
