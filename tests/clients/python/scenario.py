"""Runs named scenarios of one foreign client and prints one JSON line for each.

Every client script shares this contract, which `tests/src/clients.rs` reads:

* options say where to go and with which certificate; the scenario names follow;
* one line of JSON per scenario on standard output, nothing else there;
* `ok` says whether the SDK's call returned; when it raised, `error_class` is the name of
  the SDK's own exception and `error_bases` the classes it derives from, because that is
  what an agent's `except` clause sees;
* the exit code is 0 whenever every scenario was reported, also when calls were refused.
"""

import argparse
import asyncio
import json
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import Any

import httpx2

# What a scenario learns when the call succeeds; merged into the printed line.
Facts = dict[str, Any]
# Headers worth asserting on; others would only make the output vary.
HEADERS = (
    "content-type",
    "mcp-session-id",
    "request-id",
    "retry-after",
    "www-authenticate",
    "x-request-id",
    "x-should-retry",
)


class Wire:
    """Counts what the SDK really sent, so that hidden retries show."""

    def __init__(self) -> None:
        self.requests = 0
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.session: str | None = None

    async def sent(self, _request: httpx2.Request) -> None:
        self.requests += 1

    async def answered(self, response: httpx2.Response) -> None:
        self.statuses.append(response.status_code)
        self.headers = {name: response.headers[name] for name in HEADERS if name in response.headers}
        self.session = self.headers.get("mcp-session-id", self.session)


class Settings(argparse.Namespace):
    """The command line, and the HTTP client it asks for."""

    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert:
            context.load_cert_chain(self.cert, self.key)
        return context

    def http(self, wire: Wire, make: Callable[..., httpx2.AsyncClient] = httpx2.AsyncClient) -> httpx2.AsyncClient:
        """An HTTP client with our certificates that ignores proxies of the environment."""
        return make(
            verify=self.tls(),
            trust_env=False,
            timeout=httpx2.Timeout(self.timeout),
            headers=dict(header.split("=", 1) for header in self.header),
            event_hooks={"request": [wire.sent], "response": [wire.answered]},
        )


def options(description: str) -> argparse.ArgumentParser:
    """The options every client has; scripts add their own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--url", required=True, help="base URL as this SDK wants it")
    parser.add_argument("--ca", help="PEM file with the roots to trust; the system's when absent")
    parser.add_argument("--cert", help="PEM file with the client certificate chain")
    parser.add_argument("--key", help="PEM file with the client's private key")
    parser.add_argument("--header", action="append", default=[], metavar="NAME=VALUE", help="an extra request header")
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds one scenario may take")
    parser.add_argument("scenarios", nargs="+", help="scenario names, or `all`")
    return parser


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions inside nested groups; task groups wrap what a caller would catch."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def describe(error: BaseException) -> Facts:
    """What an agent's `except` clause would see of this exception."""
    error = leaves(error)[0]
    bases = [base.__name__ for base in type(error).__mro__ if base not in (object, BaseException, Exception)]
    return {
        "error_class": type(error).__name__,
        "error_bases": bases,
        "status": getattr(error, "status_code", None),
        "code": getattr(error, "code", None) or getattr(error, "error_code", None),
        "type": getattr(error, "type", None),
        "request_id": getattr(error, "request_id", None),
        "message": str(error),
        "cause": repr(error.__cause__) if error.__cause__ else None,
        "body": getattr(error, "body", None),
    }


def run(
    client: str,
    package: str,
    settings: Settings,
    scenarios: dict[str, Callable[[Settings, Wire], Awaitable[Facts]]],
) -> int:
    """Runs the asked scenarios one after the other; returns the exit code."""
    names = list(scenarios) if settings.scenarios == ["all"] else settings.scenarios
    if unknown := [name for name in names if name not in scenarios]:
        print(f"unknown scenario {unknown[0]!r}; known: {' '.join(scenarios)}", file=sys.stderr)
        return 2
    version = metadata.version(package)
    for name in names:
        wire = Wire()
        line: Facts = {
            "client": client,
            "version": version,
            "scenario": name,
            "ok": True,
            "error_class": None,
            "error_bases": [],
            "status": None,
            "code": None,
            "type": None,
            "message": None,
        }
        start = time.monotonic()
        try:
            line |= asyncio.run(asyncio.wait_for(scenarios[name](settings, wire), settings.timeout))
        except (Exception, asyncio.CancelledError) as error:
            # Facts a scenario had gathered before it failed, such as the chunks of a cut stream.
            line |= {"ok": False} | describe(error) | getattr(error, "facts", {})
        line |= {
            "requests": wire.requests,
            "statuses": wire.statuses,
            "headers": wire.headers,
            "elapsed_ms": round((time.monotonic() - start) * 1000),
        }
        print(json.dumps(line, default=str), flush=True)
    return 0
