"""A server on this machine that takes and gives JSON."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class JsonHandler(BaseHTTPRequestHandler):
    """`body()` is what was sent; `reply` sends JSON, or bytes as they are, `cut` in half if asked for."""

    protocol_version = "HTTP/1.1"

    def body(self):
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def reply(self, status, answer, headers=(), cut=False):
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        try:
            self.send_response(status)
            known = (("Content-Type", "application/json"), ("Content-Length", len(data)))
            for key, value in (*known, *headers):
                self.send_header(key, str(value))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)
            self.close_connection = cut
        except OSError:
            pass  # whoever asked has hung up

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # a client that was killed


@contextmanager
def listening(handler, kind=Server):
    """A server of `kind` on a free port, in a thread of its own."""
    server = kind(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
