"""Scenarios of the `anthropic` Python SDK. The base URL does not end in `/v1`."""

import sys
from typing import Any

import anthropic
from scenario import Facts, Settings, Wire, options, run

WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def sdk(settings: Settings, wire: Wire) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        base_url=settings.url,
        api_key=settings.api_key,
        max_retries=settings.max_retries,
        http_client=settings.http(wire, anthropic.DefaultAsyncHttpxClient),
    )


def usage(found: Any) -> Facts:
    return {"input": found.input_tokens, "output": found.output_tokens}


def text(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


async def messages(settings: Settings, wire: Wire, prompt: str | None = None, model: str | None = None) -> Facts:
    answer = await sdk(settings, wire).messages.create(
        model=model or settings.model,
        max_tokens=settings.max_tokens,
        messages=[{"role": "user", "content": prompt or settings.prompt}],
    )
    return {
        "text": text(answer),
        "finish_reason": answer.stop_reason,
        "model": answer.model,
        "usage": usage(answer.usage),
    }


async def stream(settings: Settings, wire: Wire, prompt: str | None = None, model: str | None = None) -> Facts:
    facts: Facts = {"text": "", "finish_reason": None, "chunks": 0, "usage": None, "terminated": False}
    try:
        async with sdk(settings, wire).messages.stream(
            model=model or settings.model,
            max_tokens=settings.max_tokens,
            messages=[{"role": "user", "content": prompt or settings.prompt}],
        ) as events:
            async for event in events:
                facts["chunks"] += 1
                if event.type == "text":
                    facts["text"] += event.text
                facts["terminated"] |= event.type == "message_stop"
            answer = await events.get_final_message()
    except Exception as error:
        error.facts = facts
        raise
    return facts | {"finish_reason": answer.stop_reason, "model": answer.model, "usage": usage(answer.usage)}


async def tool_call(settings: Settings, wire: Wire) -> Facts:
    client = sdk(settings, wire)
    turns: list[Any] = [{"role": "user", "content": "weather in Oslo"}]
    asked: Any = {"model": settings.model, "max_tokens": settings.max_tokens, "tools": [WEATHER]}
    first = await client.messages.create(messages=turns, **asked)
    call = next(block for block in first.content if block.type == "tool_use")
    turns += [
        {"role": "assistant", "content": first.content},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": call.id, "content": '{"sky": "clear"}'}],
        },
    ]
    second = await client.messages.create(messages=turns, **asked)
    return {"tool": call.name, "arguments": call.input, "finish_reason": first.stop_reason, "text": text(second)}


async def count_tokens(settings: Settings, wire: Wire) -> Facts:
    answer = await sdk(settings, wire).messages.count_tokens(
        model=settings.model, messages=[{"role": "user", "content": settings.prompt}]
    )
    return {"usage": {"input": answer.input_tokens, "output": None}}


async def models(settings: Settings, wire: Wire) -> Facts:
    return {"models": [model.id async for model in sdk(settings, wire).models.list()]}


async def model(settings: Settings, wire: Wire) -> Facts:
    return {"model": (await sdk(settings, wire).models.retrieve(settings.model)).id}


async def denied(settings: Settings, wire: Wire) -> Facts:
    return await messages(settings, wire, model=settings.denied_model)


async def denied_stream(settings: Settings, wire: Wire) -> Facts:
    return await stream(settings, wire, model=settings.denied_model)


async def unknown_path(settings: Settings, wire: Wire) -> Facts:
    return {"body": await sdk(settings, wire).post("/v1/no-such-operation", cast_to=object, body={"model": settings.model})}


async def rate_limited(settings: Settings, wire: Wire) -> Facts:
    return await messages(settings, wire, prompt="rate limit")


async def cut_stream(settings: Settings, wire: Wire) -> Facts:
    return await stream(settings, wire, prompt="cut")


async def slow_stream(settings: Settings, wire: Wire) -> Facts:
    return await stream(settings, wire, prompt="slow")


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--api-key", default="the-agents-own-key")
    parser.add_argument("--max-retries", type=int, default=0, help="the SDK's default is 2")
    parser.add_argument("--model", default="claude-sonnet-5")
    parser.add_argument("--denied-model", default="forbidden-model")
    parser.add_argument("--prompt", default="hello")
    parser.add_argument("--max-tokens", type=int, default=256)
    known = (
        messages, stream, tool_call, count_tokens, models, model,
        denied, denied_stream, unknown_path, rate_limited, cut_stream, slow_stream,
    )
    settings = parser.parse_args(namespace=Settings())
    return run("anthropic-python", "anthropic", settings, {scenario.__name__: scenario for scenario in known})


if __name__ == "__main__":
    sys.exit(main())
