"""Scenarios of the `mcp` Python SDK. The URL is the MCP endpoint itself.

`--mode` picks the era: `auto` (discover, then initialize), `legacy`, or a revision such as
`2026-07-28`. Tool, prompt and resource names default to those of server-everything.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import mcp_types as types
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from scenario import Facts, Settings, Wire, describe, options, run

ELICITED = {"name": "Ada", "check": True, "color": "red"}


class Agent:
    """A connected client with what the server sent on its own accord."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.elicitations: list[str] = []
        self.logs: list[str] = []


@asynccontextmanager
async def connect(settings: Settings, wire: Wire) -> AsyncIterator[Agent]:
    agent: Agent

    async def elicit(_context: Any, params: Any) -> types.ElicitResult:
        agent.elicitations.append(params.message)
        return types.ElicitResult(action="accept", content=json.loads(settings.elicited))

    async def log(params: Any) -> None:
        agent.logs.append(params.level)

    async with settings.http(wire) as http:
        client = Client(
            streamable_http_client(settings.url, http_client=http, terminate_on_close=not settings.keep_session),
            mode=settings.mode,
            read_timeout_seconds=settings.timeout,
            elicitation_callback=elicit,
            logging_callback=log,
            log_level="debug",
            cache=None,
        )
        agent = Agent(client)
        async with client:
            # server-everything registers its elicitation tool only after `initialized`.
            await asyncio.sleep(settings.settle)
            yield agent


def content(items: Any) -> str:
    return "".join(getattr(item, "text", "") for item in items)


async def pages(fetch: Any, field: str, name: str) -> list[str]:
    """All pages of a list, by name."""
    found, cursor = [], None
    while True:
        page = await fetch(cursor=cursor)
        found += [str(getattr(item, name)) for item in getattr(page, field)]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def initialize(settings: Settings, wire: Wire) -> Facts:
    async with connect(settings, wire) as agent:
        info = agent.client.server_info
        capabilities = agent.client.server_capabilities.model_dump(exclude_none=True)
        return {
            "protocol_version": agent.client.protocol_version,
            "server": info.name if info else None,
            "capabilities": sorted(capabilities),
            "session_id": wire.session,
        }


async def ping(settings: Settings, wire: Wire) -> Facts:
    async with connect(settings, wire) as agent:
        await agent.client.send_ping()
        return {}


async def list_tools(settings: Settings, wire: Wire) -> Facts:
    async with connect(settings, wire) as agent:
        return {"names": await pages(agent.client.list_tools, "tools", "name")}


async def list_prompts(settings: Settings, wire: Wire) -> Facts:
    async with connect(settings, wire) as agent:
        return {"names": await pages(agent.client.list_prompts, "prompts", "name")}


async def list_resources(settings: Settings, wire: Wire) -> Facts:
    async with connect(settings, wire) as agent:
        return {"names": await pages(agent.client.list_resources, "resources", "uri")}


async def list_templates(settings: Settings, wire: Wire) -> Facts:
    async with connect(settings, wire) as agent:
        return {"names": await pages(agent.client.list_resource_templates, "resource_templates", "uri_template")}


async def call_tool(settings: Settings, wire: Wire) -> Facts:
    async with connect(settings, wire) as agent:
        result = await agent.client.call_tool(settings.tool, json.loads(settings.arguments))
        return {"text": content(result.content), "is_error": bool(result.is_error)}


async def get_prompt(settings: Settings, wire: Wire) -> Facts:
    async with connect(settings, wire) as agent:
        result = await agent.client.get_prompt(settings.prompt, json.loads(settings.prompt_arguments))
        return {"text": content(message.content for message in result.messages)}


async def read_resource(settings: Settings, wire: Wire) -> Facts:
    async with connect(settings, wire) as agent:
        result = await agent.client.read_resource(settings.uri)
        return {"text": content(result.contents), "uris": [str(item.uri) for item in result.contents]}


async def complete(settings: Settings, wire: Wire) -> Facts:
    async with connect(settings, wire) as agent:
        result = await agent.client.complete(
            types.PromptReference(name=settings.completion_prompt), {"name": settings.completion_argument, "value": ""}
        )
        return {"names": result.completion.values}


async def progress(settings: Settings, wire: Wire) -> Facts:
    seen: list[float] = []

    async def report(done: float, _total: float | None, _message: str | None) -> None:
        seen.append(done)

    async with connect(settings, wire) as agent:
        result = await agent.client.call_tool(
            settings.progress_tool, json.loads(settings.progress_arguments), progress_callback=report
        )
        return {"progress": seen, "text": content(result.content)}


async def elicitation(settings: Settings, wire: Wire) -> Facts:
    async with connect(settings, wire) as agent:
        result = await agent.client.call_tool(settings.elicitation_tool, json.loads(settings.elicitation_arguments))
        return {
            "elicitations": agent.elicitations,
            "text": content(result.content),
            "is_error": bool(result.is_error),
        }


async def logging(settings: Settings, wire: Wire) -> Facts:
    """Waits for the first log notification; server-everything sends one at once, then every 5 s."""
    async with connect(settings, wire) as agent:
        if settings.mode == "legacy" or not agent.client.protocol_version >= "2026-07-28":
            await agent.client.set_logging_level("debug")
        await agent.client.call_tool(settings.logging_tool, json.loads(settings.logging_arguments))
        while not agent.logs:
            await asyncio.sleep(0.05)
        return {"logs": agent.logs}


async def cancel(settings: Settings, wire: Wire) -> Facts:
    """Gives up on a long call after half a second; the connection must survive."""
    async with connect(settings, wire) as agent:
        gave_up = False
        try:
            await agent.client.call_tool(settings.progress_tool, {"duration": 30, "steps": 30}, read_timeout_seconds=0.5)
        except MCPError:
            gave_up = True
        result = await agent.client.call_tool(settings.tool, json.loads(settings.arguments))
        return {"gave_up": gave_up, "text": content(result.content)}


async def refused(agent: Agent, attempt: Any) -> Facts:
    """One call that should fail, then a list on the same connection."""
    facts: Facts = {}
    try:
        result = await attempt
        facts["text"] = content(getattr(result, "content", []))
    except MCPError as error:
        facts |= {"ok": False} | describe(error) | {"data": error.data}
    facts["connection_survives"] = bool(await pages(agent.client.list_tools, "tools", "name"))
    return facts


async def denied_tool(settings: Settings, wire: Wire) -> Facts:
    async with connect(settings, wire) as agent:
        return await refused(agent, agent.client.call_tool(settings.denied_tool, json.loads(settings.denied_arguments)))


async def denied_prompt(settings: Settings, wire: Wire) -> Facts:
    async with connect(settings, wire) as agent:
        return await refused(agent, agent.client.get_prompt(settings.denied_prompt, {}))


async def denied_resource(settings: Settings, wire: Wire) -> Facts:
    async with connect(settings, wire) as agent:
        return await refused(agent, agent.client.read_resource(settings.denied_uri))


async def raw(settings: Settings, wire: Wire, method: str, accept: str, body: Facts | None = None) -> Facts:
    """A plain HTTP request with the same certificate; only the head of a stream is read."""
    headers = {"accept": accept}
    if settings.session_id:
        headers["mcp-session-id"] = settings.session_id
    async with settings.http(wire) as http, http.stream(method, settings.url, headers=headers, json=body) as response:
        facts: Facts = {"status": response.status_code, "ok": response.is_success}
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            facts["body"] = (await response.aread()).decode()
        return facts


async def raw_get(settings: Settings, wire: Wire) -> Facts:
    return await raw(settings, wire, "GET", "text/event-stream")


async def raw_delete(settings: Settings, wire: Wire) -> Facts:
    return await raw(settings, wire, "DELETE", "application/json")


async def raw_call(settings: Settings, wire: Wire) -> Facts:
    """`tools/call` with `--session-id`, for instance with somebody else's session."""
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": settings.tool, "arguments": json.loads(settings.arguments)},
    }
    return await raw(settings, wire, "POST", "application/json, text/event-stream", body)


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--mode", default="auto", help="auto | legacy | 2026-07-28")
    parser.add_argument("--settle", type=float, default=0.3, help="seconds to wait after connecting")
    parser.add_argument("--keep-session", action="store_true", help="do not send DELETE at the end")
    parser.add_argument("--session-id", help="session of the raw_* scenarios")
    parser.add_argument("--tool", default="echo")
    parser.add_argument("--arguments", default='{"message": "hello"}')
    parser.add_argument("--denied-tool", default="get-env")
    parser.add_argument("--denied-arguments", default="{}")
    parser.add_argument("--prompt", default="simple-prompt")
    parser.add_argument("--prompt-arguments", default="{}")
    parser.add_argument("--denied-prompt", default="args-prompt")
    parser.add_argument("--uri", default="demo://resource/static/document/instructions.md")
    parser.add_argument("--denied-uri", default="demo://resource/static/document/startup.md")
    parser.add_argument("--completion-prompt", default="completable-prompt")
    parser.add_argument("--completion-argument", default="department")
    parser.add_argument("--progress-tool", default="trigger-long-running-operation")
    parser.add_argument("--progress-arguments", default='{"duration": 0.6, "steps": 3}')
    parser.add_argument("--elicitation-tool", default="trigger-elicitation-request")
    parser.add_argument("--elicitation-arguments", default="{}")
    parser.add_argument("--elicited", default=json.dumps(ELICITED), help="what the user answers, as JSON")
    parser.add_argument("--logging-tool", default="toggle-simulated-logging")
    parser.add_argument("--logging-arguments", default="{}")
    known = (
        initialize, ping, list_tools, list_prompts, list_resources, list_templates, call_tool, get_prompt,
        read_resource, complete, progress, elicitation, logging, cancel, denied_tool, denied_prompt,
        denied_resource, raw_get, raw_delete, raw_call,
    )
    settings = parser.parse_args(namespace=Settings())
    return run("mcp-python", "mcp", settings, {scenario.__name__: scenario for scenario in known})


if __name__ == "__main__":
    sys.exit(main())
