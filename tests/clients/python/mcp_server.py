"""An MCP server of both eras over streamable HTTP at /mcp, on loopback only.

    python mcp_server.py [--port 0]

server-everything speaks the legacy era alone; this one, built on the `mcp` Python SDK, also
answers 2026-07-28 and uses the same names where it can. It announces its address in one JSON
line and ends when standard input closes.
"""

import argparse
import asyncio
import json
import os
import socket
import sys
from typing import Annotated

import uvicorn
from mcp.server.mcpserver import Context, Elicit, MCPServer, Resolve
from pydantic import BaseModel

server = MCPServer("two-eras", instructions="A server for tests.", log_level="ERROR")


class Person(BaseModel):
    name: str


async def ask() -> Elicit[Person]:
    return Elicit("Who are you?", Person)


@server.tool()
async def echo(message: str) -> str:
    """Echoes the message."""
    return f"Echo: {message}"


@server.tool(name="get-env")
async def get_env() -> str:
    """A tool that policies deny; its text must never reach a denied caller."""
    return "a secret of the environment"


@server.tool(name="trigger-long-running-operation")
async def long_running(context: Context, duration: float = 10, steps: int = 5) -> str:
    """Reports progress at each of `steps`, over `duration` seconds."""
    for step in range(1, steps + 1):
        await asyncio.sleep(duration / steps)
        await context.report_progress(step, steps)
    return f"Long running operation completed. Duration: {duration} seconds, Steps: {steps}."


@server.tool(name="toggle-simulated-logging")
async def log(context: Context) -> str:
    """Sends one log notification."""
    await context.info("an informational message")
    return "logged"


@server.tool(name="trigger-elicitation-request")
async def elicit(person: Annotated[Person, Resolve(ask)]) -> str:
    """Asks the caller's user for a name; by the back channel or by `input_required`, as the era has it."""
    return f"Name: {person.name}"


@server.prompt(name="simple-prompt")
def simple_prompt() -> str:
    """A prompt without arguments."""
    return "This is a simple prompt without arguments."


@server.prompt(name="args-prompt")
def args_prompt(city: str = "Oslo") -> str:
    """A prompt that policies deny."""
    return f"What's weather in {city}?"


@server.resource("demo://resource/static/document/instructions.md")
def instructions() -> str:
    return "# Instructions"


@server.resource("demo://resource/static/document/startup.md")
def startup() -> str:
    return "# Startup"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    listener = socket.create_server(("127.0.0.1", parser.parse_args().port), backlog=128)
    # A test that dies takes its servers with it.
    asyncio.get_running_loop().run_in_executor(None, lambda: (sys.stdin.read(), os._exit(0)))
    print(json.dumps({"listening": f"127.0.0.1:{listener.getsockname()[1]}", "pid": os.getpid()}), flush=True)
    config = uvicorn.Config(server.streamable_http_app(), log_level="error", lifespan="on")
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(main())
