"""A Hugging Face compatible server for tests, on loopback, whose misbehaviour is chosen by each test."""

import contextlib
import hashlib
import http.server
import json
import random
import socket
import ssl
import threading

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def random_bytes(seed, size):
    return random.Random(seed).randbytes(size)


class Hub:
    """Holds one repository and a log of requests. Behaviour is changed through the attributes, before or between pulls.

    fault(request) is called for every file request; returning True means that it has answered (or dropped) it.
    """

    def __init__(self, repo="openai/gpt-oss-20b", files=None, redirect_to=None, tls=None):
        self.repo = repo
        self.files = dict(files or {})
        self.lfs = {path for path in self.files if path.endswith(".safetensors")}
        self.listing_extra = []  # further entries of the listing
        self.listing_override = {}  # path -> fields that replace those of its entry
        self.give_digests = True
        self.commit = COMMIT
        self.honour_ranges = True
        self.token = None  # required bearer token
        self.fault = None
        self.listing_fault = None
        self.redirect_to = redirect_to  # base URL of another server for LFS files
        self.lock = threading.Lock()
        self.requests = []  # (path, range header, authorization)
        self.body_bytes = 0  # bytes of files put on the wire
        hub = self

        class Handler(RequestHandler):
            pass

        Handler.hub = hub
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.scheme = "http"
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            # The handshake belongs to the connection's own thread, not to the one that accepts.
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True,
                                                     do_handshake_on_connect=False)
            self.scheme = "https"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server.server_address[1]}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def reset_counters(self):
        with self.lock:
            self.requests = []
            self.body_bytes = 0

    def file_requests(self, path):
        with self.lock:
            return [r for r in self.requests if r[0].endswith("/" + path)]

    def listing(self):
        siblings = []
        for path, data in self.files.items():
            entry = {"rfilename": path, "size": len(data)}
            if self.give_digests:
                blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                entry["blobId"] = blob
                if path in self.lfs:
                    entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            entry.update(self.listing_override.get(path, {}))
            siblings.append(entry)
        return {"id": self.repo, "sha": self.commit, "siblings": siblings + self.listing_extra}


class RequestHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = None

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.write(body)

    def write(self, body, piece=16384):
        """Counts what was handed to the socket, so that a peer that goes away is not charged for the rest."""
        for start in range(0, len(body), piece):
            part = body[start : start + piece]
            self.wfile.write(part)
            with self.hub.lock:
                self.hub.body_bytes += len(part)

    def drop(self):
        self.close_connection = True
        with contextlib.suppress(OSError):  # the peer may have gone first
            self.connection.shutdown(socket.SHUT_RDWR)

    def handle(self):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
            super().handle()

    def do_GET(self):
        self.route()

    def route(self):
        hub = self.hub
        with hub.lock:
            hub.requests.append((self.path, self.headers.get("Range"), self.headers.get("Authorization")))
        if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.answer(401, b"no", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        if self.path.startswith("/api/models/"):
            return self.route_listing()
        for prefix in (f"/{hub.repo}/resolve/{hub.commit}/", f"/{hub.repo}/resolve/main/", "/cdn/"):
            if self.path.startswith(prefix):
                return self.route_file(self.path[len(prefix) :], prefix)
        return self.answer(404, b"not found", {"X-Error-Code": "EntryNotFound"})

    def route_listing(self):
        hub = self.hub
        if hub.listing_fault is not None and hub.listing_fault(self):
            return None
        if self.path != f"/api/models/{hub.repo}/revision/main?blobs=true":
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        return self.answer(200, json.dumps(hub.listing()).encode(), {"Content-Type": "application/json"})

    def route_file(self, name, prefix):
        hub = self.hub
        if name not in hub.files:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        if hub.redirect_to is not None and prefix != "/cdn/" and name in hub.lfs:
            return self.answer(302, b"", {"Location": f"{hub.redirect_to}/cdn/{name}"})
        self.name, self.data = name, hub.files[name]
        self.begin, self.end, self.ranged = 0, len(self.data), False
        value = self.headers.get("Range")
        if value is not None and hub.honour_ranges:
            first, last = value.removeprefix("bytes=").split("-")
            self.begin, self.end, self.ranged = int(first), int(last) + 1, True
        if hub.fault is not None and hub.fault(self):
            return None
        return self.serve(self.data[self.begin : self.end])

    def file_headers(self, length, etag='"v1"'):
        self.send_response(206 if self.ranged else 200)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", etag)
        if self.ranged:
            self.send_header("Content-Range", f"bytes {self.begin}-{self.end - 1}/{len(self.data)}")
        self.end_headers()

    def serve(self, body, announce=None, etag='"v1"'):
        self.file_headers(len(body) if announce is None else announce, etag)
        self.write(body)
