// Scenarios of the `@modelcontextprotocol/sdk` (v1 line, legacy era). The URL is the endpoint itself.
// Tool, prompt and resource names default to those of server-everything.
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema, LoggingMessageNotificationSchema } from "@modelcontextprotocol/sdk/types.js";
import { describe, run } from "./scenario.mjs";

/** Connects, runs `use` with the agent, ends the session. */
async function connected(settings, wire, use) {
  const client = new Client({ name: "waypoint-tests", version: "1.0.0" }, { capabilities: { elicitation: {} } });
  const transport = new StreamableHTTPClientTransport(new URL(settings.url), { fetch: wire.fetch });
  const agent = { client, transport, elicitations: [], logs: [] };
  client.setRequestHandler(ElicitRequestSchema, (request) => {
    agent.elicitations.push(request.params.message);
    return { action: "accept", content: JSON.parse(settings.elicited) };
  });
  client.setNotificationHandler(LoggingMessageNotificationSchema, (notification) => {
    agent.logs.push(notification.params.level);
  });
  try {
    await client.connect(transport);
    // server-everything registers its elicitation tool only after `initialized`.
    await sleep(Number(settings.settle) * 1000);
    const facts = await use(agent);
    if (!settings["keep-session"]) await transport.terminateSession();
    return facts;
  } finally {
    await client.close();
  }
}

const content = (items = []) => items.map((item) => item.text ?? "").join("");

/** All pages of a list, by name. */
async function pages(fetch, field, name) {
  const found = [];
  let cursor;
  do {
    const page = await fetch(cursor === undefined ? {} : { cursor });
    found.push(...page[field].map((item) => item[name]));
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return found;
}

const tools = ({ client }) => pages((params) => client.listTools(params), "tools", "name");

const lists = (fetch, field, name) => (settings, wire) =>
  connected(settings, wire, async ({ client }) => ({
    names: await pages((params) => client[fetch](params), field, name),
  }));

const call = (client, settings, options) =>
  client.callTool({ name: settings.tool, arguments: JSON.parse(settings.arguments) }, undefined, options);

/** One call that should fail, then a list on the same connection. */
const refused = (attempt) => (settings, wire) =>
  connected(settings, wire, async (agent) => {
    const facts = {};
    try {
      facts.text = content((await attempt(agent.client, settings)).content);
    } catch (error) {
      Object.assign(facts, { ok: false, ...describe(error), data: error.data ?? null });
    }
    facts.connection_survives = (await tools(agent)).length > 0;
    return facts;
  });

/** A plain HTTP request with the same certificate; only the head of a stream is read. */
async function raw(settings, wire, method, accept, body) {
  const headers = { accept };
  if (body) headers["content-type"] = "application/json";
  if (settings["session-id"]) headers["mcp-session-id"] = settings["session-id"];
  const response = await wire.fetch(settings.url, { method, headers, ...(body && { body: JSON.stringify(body) }) });
  const facts = { status: response.status, ok: response.ok };
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) facts.body = await response.text();
  return facts;
}

const options = {
  settle: { type: "string", default: "0.3" },
  "keep-session": { type: "boolean", default: false },
  "session-id": { type: "string" },
  tool: { type: "string", default: "echo" },
  arguments: { type: "string", default: '{"message": "hello"}' },
  "denied-tool": { type: "string", default: "get-env" },
  "denied-arguments": { type: "string", default: "{}" },
  prompt: { type: "string", default: "simple-prompt" },
  "prompt-arguments": { type: "string", default: "{}" },
  "denied-prompt": { type: "string", default: "args-prompt" },
  uri: { type: "string", default: "demo://resource/static/document/instructions.md" },
  "denied-uri": { type: "string", default: "demo://resource/static/document/startup.md" },
  "completion-prompt": { type: "string", default: "completable-prompt" },
  "completion-argument": { type: "string", default: "department" },
  "progress-tool": { type: "string", default: "trigger-long-running-operation" },
  "progress-arguments": { type: "string", default: '{"duration": 0.6, "steps": 3}' },
  "elicitation-tool": { type: "string", default: "trigger-elicitation-request" },
  "elicitation-arguments": { type: "string", default: "{}" },
  elicited: { type: "string", default: '{"name": "Ada", "check": true, "color": "red"}' },
  "logging-tool": { type: "string", default: "toggle-simulated-logging" },
  "logging-arguments": { type: "string", default: "{}" },
};

await run("mcp-node", "@modelcontextprotocol/sdk", options, {
  initialize: (settings, wire) =>
    connected(settings, wire, async ({ client, transport }) => ({
      protocol_version: transport.protocolVersion,
      server: client.getServerVersion()?.name ?? null,
      capabilities: Object.keys(client.getServerCapabilities()).sort(),
      session_id: transport.sessionId ?? null,
    })),
  ping: (settings, wire) =>
    connected(settings, wire, async ({ client }) => {
      await client.ping();
      return {};
    }),
  list_tools: lists("listTools", "tools", "name"),
  list_prompts: lists("listPrompts", "prompts", "name"),
  list_resources: lists("listResources", "resources", "uri"),
  list_templates: lists("listResourceTemplates", "resourceTemplates", "uriTemplate"),
  call_tool: (settings, wire) =>
    connected(settings, wire, async ({ client }) => {
      const result = await call(client, settings);
      return { text: content(result.content), is_error: Boolean(result.isError) };
    }),
  get_prompt: (settings, wire) =>
    connected(settings, wire, async ({ client }) => {
      const result = await client.getPrompt({
        name: settings.prompt,
        arguments: JSON.parse(settings["prompt-arguments"]),
      });
      return { text: content(result.messages.map((message) => message.content)) };
    }),
  read_resource: (settings, wire) =>
    connected(settings, wire, async ({ client }) => {
      const { contents } = await client.readResource({ uri: settings.uri });
      return { text: content(contents), uris: contents.map((item) => item.uri) };
    }),
  complete: (settings, wire) =>
    connected(settings, wire, async ({ client }) => {
      const result = await client.complete({
        ref: { type: "ref/prompt", name: settings["completion-prompt"] },
        argument: { name: settings["completion-argument"], value: "" },
      });
      return { names: result.completion.values };
    }),
  progress: (settings, wire) =>
    connected(settings, wire, async ({ client }) => {
      const seen = [];
      const result = await client.callTool(
        { name: settings["progress-tool"], arguments: JSON.parse(settings["progress-arguments"]) },
        undefined,
        { onprogress: ({ progress }) => seen.push(progress) },
      );
      return { progress: seen, text: content(result.content) };
    }),
  elicitation: (settings, wire) =>
    connected(settings, wire, async ({ client, elicitations }) => {
      const result = await client.callTool({
        name: settings["elicitation-tool"],
        arguments: JSON.parse(settings["elicitation-arguments"]),
      });
      return { elicitations, text: content(result.content), is_error: Boolean(result.isError) };
    }),
  // Waits for the first log notification; server-everything sends one at once, then every 5 s.
  logging: (settings, wire) =>
    connected(settings, wire, async ({ client, logs }) => {
      await client.setLoggingLevel("debug");
      await client.callTool({
        name: settings["logging-tool"],
        arguments: JSON.parse(settings["logging-arguments"]),
      });
      while (logs.length === 0) await sleep(50);
      return { logs };
    }),
  // Gives up on a long call after half a second; the connection must survive.
  cancel: (settings, wire) =>
    connected(settings, wire, async ({ client }) => {
      let gaveUp = false;
      await client
        .callTool({ name: settings["progress-tool"], arguments: { duration: 30, steps: 30 } }, undefined, { timeout: 500 })
        .catch(() => {
          gaveUp = true;
        });
      return { gave_up: gaveUp, text: content((await call(client, settings)).content) };
    }),
  denied_tool: refused((client, settings) =>
    client.callTool({ name: settings["denied-tool"], arguments: JSON.parse(settings["denied-arguments"]) }),
  ),
  denied_prompt: refused((client, settings) => client.getPrompt({ name: settings["denied-prompt"], arguments: {} })),
  denied_resource: refused((client, settings) => client.readResource({ uri: settings["denied-uri"] })),
  raw_get: (settings, wire) => raw(settings, wire, "GET", "text/event-stream"),
  raw_delete: (settings, wire) => raw(settings, wire, "DELETE", "application/json"),
  // `tools/call` with `--session-id`, for instance with somebody else's session.
  raw_call: (settings, wire) =>
    raw(settings, wire, "POST", "application/json, text/event-stream", {
      jsonrpc: "2.0",
      id: 1,
      method: "tools/call",
      params: { name: settings.tool, arguments: JSON.parse(settings.arguments) },
    }),
});
