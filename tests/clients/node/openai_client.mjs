// Scenarios of the `openai` JavaScript SDK. The base URL ends in `/v1`.
import OpenAI from "openai";
import { gather, run } from "./scenario.mjs";

const WEATHER = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather of a city.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

const sdk = (settings, wire) =>
  new OpenAI({
    baseURL: settings.url,
    apiKey: settings["api-key"],
    maxRetries: Number(settings["max-retries"]),
    fetch: wire.fetch,
  });

// Token counts under one name for both API shapes.
const usage = (found) =>
  found && {
    input: found.prompt_tokens ?? found.input_tokens ?? null,
    output: found.completion_tokens ?? found.output_tokens ?? null,
    total: found.total_tokens,
  };

async function chat(settings, wire, { prompt = settings.prompt, model = settings.model } = {}) {
  const answer = await sdk(settings, wire).chat.completions.create({
    model,
    messages: [{ role: "user", content: prompt }],
    max_completion_tokens: Number(settings["max-tokens"]),
  });
  const [choice] = answer.choices;
  return {
    text: choice.message.content,
    finish_reason: choice.finish_reason,
    model: answer.model,
    usage: usage(answer.usage),
  };
}

async function stream(settings, wire, { prompt = settings.prompt, model = settings.model, includeUsage } = {}) {
  const chunks = await sdk(settings, wire).chat.completions.create({
    model,
    messages: [{ role: "user", content: prompt }],
    stream: true,
    ...(includeUsage === undefined ? {} : { stream_options: { include_usage: includeUsage } }),
  });
  const facts = { text: "", finish_reason: null, chunks: 0, usage: null, usage_chunks: 0, empty_chunks: 0 };
  return gather(facts, async () => {
    for await (const chunk of chunks) {
      facts.chunks += 1;
      if (chunk.usage) {
        facts.usage_chunks += 1;
        facts.usage = usage(chunk.usage);
      }
      if (chunk.choices.length === 0) {
        facts.empty_chunks += 1;
        continue;
      }
      facts.text += chunk.choices[0].delta.content ?? "";
      facts.finish_reason = chunk.choices[0].finish_reason ?? facts.finish_reason;
    }
  });
}

async function toolCall(settings, wire) {
  const client = sdk(settings, wire);
  const messages = [{ role: "user", content: "weather in Oslo" }];
  const first = await client.chat.completions.create({ model: settings.model, messages, tools: [WEATHER] });
  const [call] = first.choices[0].message.tool_calls;
  messages.push(first.choices[0].message, { role: "tool", tool_call_id: call.id, content: '{"sky": "clear"}' });
  const second = await client.chat.completions.create({ model: settings.model, messages, tools: [WEATHER] });
  return {
    tool: call.function.name,
    arguments: call.function.arguments,
    finish_reason: first.choices[0].finish_reason,
    text: second.choices[0].message.content,
  };
}

async function embeddings(settings, wire) {
  const answer = await sdk(settings, wire).embeddings.create({
    model: settings["embedding-model"],
    input: [settings.prompt, "second text"],
    encoding_format: "float",
  });
  return { vectors: answer.data.length, dimensions: answer.data[0].embedding.length, usage: usage(answer.usage) };
}

async function responses(settings, wire) {
  const answer = await sdk(settings, wire).responses.create({ model: settings.model, input: settings.prompt });
  return {
    text: answer.output_text,
    finish_reason: answer.status,
    model: answer.model,
    usage: usage(answer.usage),
  };
}

async function responsesStream(settings, wire) {
  const facts = { text: "", finish_reason: null, chunks: 0, usage: null };
  return gather(facts, async () => {
    const events = await sdk(settings, wire).responses.create({
      model: settings.model,
      input: settings.prompt,
      stream: true,
    });
    for await (const event of events) {
      facts.chunks += 1;
      if (event.type === "response.output_text.delta") facts.text += event.delta;
      if (["response.completed", "response.incomplete", "response.failed"].includes(event.type)) {
        facts.finish_reason = event.response.status;
        facts.usage = usage(event.response.usage);
      }
    }
  });
}

async function models(settings, wire) {
  const found = [];
  for await (const model of sdk(settings, wire).models.list()) found.push(model.id);
  return { models: found };
}

const options = {
  "api-key": { type: "string", default: "the-agents-own-key" },
  "max-retries": { type: "string", default: "0" },
  model: { type: "string", default: "gpt-4o" },
  "denied-model": { type: "string", default: "forbidden-model" },
  "embedding-model": { type: "string", default: "text-embedding-3-small" },
  prompt: { type: "string", default: "hello" },
  "max-tokens": { type: "string", default: "256" },
};

await run("openai-node", "openai", options, {
  chat,
  stream,
  stream_usage: (settings, wire) => stream(settings, wire, { includeUsage: true }),
  stream_no_usage: (settings, wire) => stream(settings, wire, { includeUsage: false }),
  tool_call: toolCall,
  embeddings,
  responses,
  responses_stream: responsesStream,
  models,
  model: async (settings, wire) => ({ model: (await sdk(settings, wire).models.retrieve(settings.model)).id }),
  denied: (settings, wire) => chat(settings, wire, { model: settings["denied-model"] }),
  denied_stream: (settings, wire) => stream(settings, wire, { model: settings["denied-model"] }),
  unknown_path: async (settings, wire) => ({
    body: await sdk(settings, wire).post("/no-such-operation", { body: { model: settings.model } }),
  }),
  rate_limited: (settings, wire) => chat(settings, wire, { prompt: "rate limit" }),
  cut_stream: (settings, wire) => stream(settings, wire, { prompt: "cut" }),
  slow_stream: (settings, wire) => stream(settings, wire, { prompt: "slow", includeUsage: true }),
});
