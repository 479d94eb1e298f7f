// Scenarios of the `@anthropic-ai/sdk` JavaScript SDK. The base URL does not end in `/v1`.
import Anthropic from "@anthropic-ai/sdk";
import { gather, run } from "./scenario.mjs";

const WEATHER = {
  name: "get_weather",
  description: "The weather of a city.",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

const sdk = (settings, wire) =>
  new Anthropic({
    baseURL: settings.url,
    apiKey: settings["api-key"],
    maxRetries: Number(settings["max-retries"]),
    fetch: wire.fetch,
  });

const usage = (found) => ({ input: found.input_tokens, output: found.output_tokens });
const text = (message) => message.content.map((block) => (block.type === "text" ? block.text : "")).join("");

async function messages(settings, wire, { prompt = settings.prompt, model = settings.model } = {}) {
  const answer = await sdk(settings, wire).messages.create({
    model,
    max_tokens: Number(settings["max-tokens"]),
    messages: [{ role: "user", content: prompt }],
  });
  return {
    text: text(answer),
    finish_reason: answer.stop_reason,
    model: answer.model,
    usage: usage(answer.usage),
  };
}

async function stream(settings, wire, { prompt = settings.prompt, model = settings.model } = {}) {
  const facts = { text: "", finish_reason: null, chunks: 0, usage: null, terminated: false };
  return gather(facts, async () => {
    const events = sdk(settings, wire).messages.stream({
      model,
      max_tokens: Number(settings["max-tokens"]),
      messages: [{ role: "user", content: prompt }],
    });
    for await (const event of events) {
      facts.chunks += 1;
      if (event.type === "content_block_delta") facts.text += event.delta.text ?? "";
      facts.terminated ||= event.type === "message_stop";
    }
    const answer = await events.finalMessage();
    facts.finish_reason = answer.stop_reason;
    facts.model = answer.model;
    facts.usage = usage(answer.usage);
  });
}

async function toolCall(settings, wire) {
  const client = sdk(settings, wire);
  const asked = { model: settings.model, max_tokens: Number(settings["max-tokens"]), tools: [WEATHER] };
  const turns = [{ role: "user", content: "weather in Oslo" }];
  const first = await client.messages.create({ ...asked, messages: turns });
  const call = first.content.find((block) => block.type === "tool_use");
  turns.push(
    { role: "assistant", content: first.content },
    { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: '{"sky": "clear"}' }] },
  );
  const second = await client.messages.create({ ...asked, messages: turns });
  return { tool: call.name, arguments: call.input, finish_reason: first.stop_reason, text: text(second) };
}

async function countTokens(settings, wire) {
  const answer = await sdk(settings, wire).messages.countTokens({
    model: settings.model,
    messages: [{ role: "user", content: settings.prompt }],
  });
  return { usage: { input: answer.input_tokens, output: null } };
}

async function models(settings, wire) {
  const found = [];
  for await (const model of sdk(settings, wire).models.list()) found.push(model.id);
  return { models: found };
}

const options = {
  "api-key": { type: "string", default: "the-agents-own-key" },
  "max-retries": { type: "string", default: "0" },
  model: { type: "string", default: "claude-sonnet-5" },
  "denied-model": { type: "string", default: "forbidden-model" },
  prompt: { type: "string", default: "hello" },
  "max-tokens": { type: "string", default: "256" },
};

await run("anthropic-node", "@anthropic-ai/sdk", options, {
  messages,
  stream,
  tool_call: toolCall,
  count_tokens: countTokens,
  models,
  model: async (settings, wire) => ({ model: (await sdk(settings, wire).models.retrieve(settings.model)).id }),
  denied: (settings, wire) => messages(settings, wire, { model: settings["denied-model"] }),
  denied_stream: (settings, wire) => stream(settings, wire, { model: settings["denied-model"] }),
  unknown_path: async (settings, wire) => ({
    body: await sdk(settings, wire).post("/v1/no-such-operation", { body: { model: settings.model } }),
  }),
  rate_limited: (settings, wire) => messages(settings, wire, { prompt: "rate limit" }),
  cut_stream: (settings, wire) => stream(settings, wire, { prompt: "cut" }),
  slow_stream: (settings, wire) => stream(settings, wire, { prompt: "slow" }),
});
