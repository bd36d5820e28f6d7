"""A receiver of webhooks in the standard library alone: checks the signature, tells each event once.

    RECEIVER_SECRET=whsec_... python docs/examples/receiver.py 8099

Behind something that ends TLS. RECEIVER_SECRET may hold two secrets apart by a space, while one is changed.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

BODY_BYTES_MAX = 1024 * 1024
TOLERANCE_S = 300  # older or newer messages may be replayed ones, or a clock is wrong
REMEMBERED = 10_000


def keys_of(secrets: str) -> list[bytes]:
    """Return the keys in one or several secrets."""
    return [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets.split()]


def is_genuine(
    keys: list[bytes], message_id: str, timestamp: str, signatures: str, body: bytes, now: float
) -> bool:
    """Return whether one of the signatures is of one of the keys, and the message is of now."""
    if not timestamp.isdigit() or abs(now - int(timestamp)) > TOLERANCE_S:
        return False
    signed = f"{message_id}.{timestamp}.".encode() + body
    given = [part.removeprefix("v1,").encode() for part in signatures.split() if part.startswith("v1,")]
    expected = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()) for key in keys]
    return any(hmac.compare_digest(one, other) for one in given for other in expected)


class Seen:
    """The ids of the newest messages; a program that must be exact keeps them beside its own data."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def add(self, message_id: str) -> bool:
        """Return whether an id is new."""
        with self._lock:
            if message_id in self._ids:
                return False
            self._ids[message_id] = None
            if len(self._ids) > REMEMBERED:
                self._ids.popitem(last=False)
            return True


class Handler(BaseHTTPRequestHandler):
    """Answers 204 to what it took, also to what it had before; 401 to what is not genuine."""

    timeout = 10
    keys = keys_of(os.environ.get("RECEIVER_SECRET", ""))
    seen = Seen()

    def do_POST(self) -> None:
        """Take a message."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > BODY_BYTES_MAX:
            self._answer(413)
            return
        body = self.rfile.read(int(length))
        message_id, timestamp, signatures = (
            self.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
        )
        if not is_genuine(self.keys, message_id, timestamp, signatures, body, time.time()):
            self._answer(401)
            return
        event = json.loads(body)
        # A digest holds several events; each has the id that it would have had alone.
        inner = event["data"]["events"] if event["type"] == "clv.webhook.digest.v1" else [event]
        for one in inner:
            if self.seen.add(one["id"]):
                print(json.dumps({"id": one["id"], "type": one["type"]}), flush=True)  # noqa: T201
        self._answer(204)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: the events are told above."""


if __name__ == "__main__":
    if not Handler.keys:
        sys.exit("RECEIVER_SECRET is not set")
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8099), Handler)
    print(json.dumps({"listening": server.server_port}), flush=True)  # noqa: T201
    server.serve_forever()
