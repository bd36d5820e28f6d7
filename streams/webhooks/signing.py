"""Signatures as Standard Webhooks has them: HMAC-SHA256 over id, time and body, so that all three hold.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
KEY_BYTES_MIN, KEY_BYTES_MAX = 24, 64  # the specification's bounds


def key_of(secret: str) -> bytes:
    """Return the key in `secret` (`whsec_` and base64); raises ValueError, which does not show it."""
    try:
        key = base64.b64decode(secret.strip().removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a signing secret is `whsec_` and base64 behind it") from None
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise ValueError(f"a signing secret has {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes, not {len(key)}")
    return key


def signature_headers(keys: Sequence[bytes], message_id: str, sent_at_s: int, body: bytes) -> dict[str, str]:
    """Return the three headers of a message; a signature for each key, apart by spaces."""
    signed = b"%s.%d.%s" % (message_id.encode(), sent_at_s, body)
    signatures = [base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys]
    headers = {"webhook-id": message_id, "webhook-timestamp": str(sent_at_s)}
    if signatures:
        headers["webhook-signature"] = " ".join(f"v1,{signature}" for signature in signatures)
    return headers
