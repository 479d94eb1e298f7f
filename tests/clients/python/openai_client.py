"""Scenarios of the `openai` Python SDK. The base URL ends in `/v1`."""

import sys
from collections.abc import AsyncIterator
from typing import Any

import openai
from scenario import Facts, Settings, Wire, options, run

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def sdk(settings: Settings, wire: Wire) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=settings.url,
        api_key=settings.api_key,
        max_retries=settings.max_retries,
        http_client=settings.http(wire, openai.DefaultAsyncHttpxClient),
    )


def usage(found: Any) -> Facts | None:
    """Token counts under one name for both API shapes."""
    if found is None:
        return None
    if hasattr(found, "input_tokens"):
        return {"input": found.input_tokens, "output": found.output_tokens, "total": found.total_tokens}
    return {"input": found.prompt_tokens, "output": found.completion_tokens, "total": found.total_tokens}


async def chat(settings: Settings, wire: Wire, prompt: str | None = None, model: str | None = None) -> Facts:
    answer = await sdk(settings, wire).chat.completions.create(
        model=model or settings.model,
        messages=[{"role": "user", "content": prompt or settings.prompt}],
        max_completion_tokens=settings.max_tokens,
    )
    choice = answer.choices[0]
    return {
        "text": choice.message.content,
        "finish_reason": choice.finish_reason,
        "model": answer.model,
        "usage": usage(answer.usage),
    }


async def read(chunks: AsyncIterator[Any], facts: Facts) -> Facts:
    """Reads a chat stream; an exception carries what had arrived before it."""
    try:
        async for chunk in chunks:
            facts["chunks"] += 1
            if chunk.usage is not None:
                facts["usage_chunks"] += 1
                facts["usage"] = usage(chunk.usage)
            if not chunk.choices:
                facts["empty_chunks"] += 1
                continue
            facts["text"] += chunk.choices[0].delta.content or ""
            facts["finish_reason"] = chunk.choices[0].finish_reason or facts["finish_reason"]
    except Exception as error:
        error.facts = facts
        raise
    return facts


async def stream(
    settings: Settings,
    wire: Wire,
    include_usage: bool | None = None,
    prompt: str | None = None,
    model: str | None = None,
) -> Facts:
    asked: Facts = {} if include_usage is None else {"stream_options": {"include_usage": include_usage}}
    chunks = await sdk(settings, wire).chat.completions.create(
        model=model or settings.model,
        messages=[{"role": "user", "content": prompt or settings.prompt}],
        stream=True,
        **asked,
    )
    return await read(
        chunks,
        {"text": "", "finish_reason": None, "chunks": 0, "usage": None, "usage_chunks": 0, "empty_chunks": 0},
    )


async def stream_usage(settings: Settings, wire: Wire) -> Facts:
    return await stream(settings, wire, include_usage=True)


async def stream_no_usage(settings: Settings, wire: Wire) -> Facts:
    return await stream(settings, wire, include_usage=False)


async def tool_call(settings: Settings, wire: Wire) -> Facts:
    client = sdk(settings, wire)
    messages: list[Any] = [{"role": "user", "content": "weather in Oslo"}]
    first = await client.chat.completions.create(model=settings.model, messages=messages, tools=[WEATHER])
    call = first.choices[0].message.tool_calls[0]
    messages += [
        first.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": '{"sky": "clear"}'},
    ]
    second = await client.chat.completions.create(model=settings.model, messages=messages, tools=[WEATHER])
    return {
        "tool": call.function.name,
        "arguments": call.function.arguments,
        "finish_reason": first.choices[0].finish_reason,
        "text": second.choices[0].message.content,
    }


async def embeddings(settings: Settings, wire: Wire) -> Facts:
    answer = await sdk(settings, wire).embeddings.create(
        model=settings.embedding_model, input=[settings.prompt, "second text"]
    )
    return {
        "vectors": len(answer.data),
        "dimensions": len(answer.data[0].embedding),
        "usage": {"input": answer.usage.prompt_tokens, "output": None, "total": answer.usage.total_tokens},
    }


async def responses(settings: Settings, wire: Wire) -> Facts:
    answer = await sdk(settings, wire).responses.create(model=settings.model, input=settings.prompt)
    return {
        "text": answer.output_text,
        "finish_reason": answer.status,
        "model": answer.model,
        "usage": usage(answer.usage),
    }


async def responses_stream(settings: Settings, wire: Wire) -> Facts:
    facts: Facts = {"text": "", "finish_reason": None, "chunks": 0, "usage": None}
    try:
        async for event in await sdk(settings, wire).responses.create(
            model=settings.model, input=settings.prompt, stream=True
        ):
            facts["chunks"] += 1
            if event.type == "response.output_text.delta":
                facts["text"] += event.delta
            if event.type in ("response.completed", "response.incomplete", "response.failed"):
                facts["finish_reason"] = event.response.status
                facts["usage"] = usage(event.response.usage)
    except Exception as error:
        error.facts = facts
        raise
    return facts


async def models(settings: Settings, wire: Wire) -> Facts:
    return {"models": [model.id async for model in sdk(settings, wire).models.list()]}


async def model(settings: Settings, wire: Wire) -> Facts:
    return {"model": (await sdk(settings, wire).models.retrieve(settings.model)).id}


async def denied(settings: Settings, wire: Wire) -> Facts:
    return await chat(settings, wire, model=settings.denied_model)


async def denied_stream(settings: Settings, wire: Wire) -> Facts:
    return await stream(settings, wire, model=settings.denied_model)


async def unknown_path(settings: Settings, wire: Wire) -> Facts:
    return {"body": await sdk(settings, wire).post("/no-such-operation", cast_to=object, body={"model": settings.model})}


async def rate_limited(settings: Settings, wire: Wire) -> Facts:
    return await chat(settings, wire, prompt="rate limit")


async def cut_stream(settings: Settings, wire: Wire) -> Facts:
    return await stream(settings, wire, prompt="cut")


async def slow_stream(settings: Settings, wire: Wire) -> Facts:
    return await stream(settings, wire, include_usage=True, prompt="slow")


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--api-key", default="the-agents-own-key")
    parser.add_argument("--max-retries", type=int, default=0, help="the SDK's default is 2")
    parser.add_argument("--model", default="gpt-4o")
    parser.add_argument("--denied-model", default="forbidden-model")
    parser.add_argument("--embedding-model", default="text-embedding-3-small")
    parser.add_argument("--prompt", default="hello")
    parser.add_argument("--max-tokens", type=int, default=256)
    known = (
        chat, stream, stream_usage, stream_no_usage, tool_call, embeddings, responses, responses_stream, models, model,
        denied, denied_stream, unknown_path, rate_limited, cut_stream, slow_stream,
    )
    settings = parser.parse_args(namespace=Settings())
    return run("openai-python", "openai", settings, {scenario.__name__: scenario for scenario in known})


if __name__ == "__main__":
    sys.exit(main())
