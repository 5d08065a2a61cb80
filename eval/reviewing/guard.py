"""The door of the local server: who may ask, how much a request may hold, and what a browser may do with an answer."""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 256 * 1024  # of a request's body
COOKIE = "stylegate_review"
# Scripts, styles and pictures come from this server alone; nothing is embedded, nothing can be framed or sent away.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class RequestGuard:
    """An ASGI application around another one. It answers by itself whatever must not reach that one.

    A page of another site can make a browser send requests here. It is told from our own page by the Host header (a
    name that was pointed to this machine is not ours) and by the Origin header (its own, on everything that saves).
    """

    app: App
    host: str  # the address that the server listens on
    token: str = ""  # needed where others can reach the server; "" for none

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if not self.is_own_host_header(headers.get("host", "")):
            await refuse_request(send, 421, "this server is reached under another address")
        elif scope["method"] not in ("GET", "HEAD", "POST"):
            await refuse_request(send, 405, "no such method")
        elif scope["method"] == "POST" and not is_same_origin(headers):
            await refuse_request(send, 403, "a request of another page")
        elif self.token and (given := token_in_address(scope)) is not None:
            await self.exchange_token_for_cookie(given, send)
        elif self.token and not tokens_equal_in_constant_time(self.token, token_in_cookie(headers.get("cookie", ""))):
            await refuse_request(send, 401, "open the address that stylegate review printed")
        else:
            body = await read_whole_body(receive) if scope["method"] == "POST" else b""
            if body is None:
                await refuse_request(send, 413, f"a request holds {MOST_BYTES} bytes at most")
            else:
                await self.app(scope, receive_replaying_body(body, receive), send_adding_security_headers(send))

    def is_own_host_header(self, host: str) -> bool:
        """Whether a Host header is of this server: a name that somebody else points here is not."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in ("localhost", self.host.lower()):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not is_loopback(self.host)

    async def exchange_token_for_cookie(self, given: str, send: Send) -> None:
        """Answer an address with a token: with a cookie, and the address without it."""
        if not tokens_equal_in_constant_time(self.token, given):
            await refuse_request(send, 401, "open the address that stylegate review printed")
            return
        cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
        await send_response(send, 303, b"", {"location": "/", "set-cookie": cookie})


def is_same_origin(headers: dict[str, str]) -> bool:
    """Whether a request comes from a page of this server, and says that it holds JSON."""
    try:
        origin = urlsplit(headers.get("origin", ""))
    except ValueError:
        return False
    json = headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
    return json and origin.scheme == "http" and origin.netloc == headers.get("host", "")


def token_in_address(scope: Scope) -> str | None:
    """The token in the query of a request for `/?token=...`; None for any other address."""
    found = parse_qs(scope["query_string"].decode("latin-1")).get("token")
    return found[0] if found and scope["path"] == "/" else None


def token_in_cookie(text: str) -> str:
    """The token in a Cookie header; "" if it has none, or cannot be read."""
    try:
        found = SimpleCookie(text).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def tokens_equal_in_constant_time(token: str, given: str) -> bool:
    """Whether two tokens are equal, compared in constant time, so that the time tells nothing of the token."""
    return hmac.compare_digest(token.encode(), given.encode(errors="replace"))


async def read_whole_body(receive: Receive) -> bytes | None:
    """The body of a request; None if it is too long, or its sender left."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MOST_BYTES:
            return None
    return body


def receive_replaying_body(body: bytes, receive: Receive) -> Receive:
    """An ASGI `receive` that gives the body again that was read already, and then what comes after it."""
    told = False

    async def receive_body_first_then_rest() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_body_first_then_rest


def send_adding_security_headers(send: Send) -> Send:
    """An ASGI `send` that adds HEADERS to every response."""

    async def send_with_security_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message["headers"] = [*message.get("headers", []), *own]
        await send(message)

    return send_with_security_headers


async def refuse_request(send: Send, status: int, why: str) -> None:
    """Answer a request with this HTTP status and `why` as plain text."""
    await send_response(send, status, f"{why}\n".encode(), {"content-type": "text/plain; charset=utf-8"})


async def send_response(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    """Answer a request with status, headers and body, and with HEADERS."""
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    start = {"type": "http.response.start", "status": status, "headers": raw}
    await send_adding_security_headers(send)({**start, "headers": [*raw, (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
