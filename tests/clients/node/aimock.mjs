// An LLM provider for tests: @copilotkit/aimock on loopback, answering from a fixtures file.
//
//   node aimock.mjs [--port 0] [--fixtures fixtures/llm.json] [--api-key KEY]
//
// With --api-key every request must carry that key, in `authorization` or `x-api-key`.
// GET /__aimock/journal returns what arrived; prompts that choose an answer are in the fixtures.
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { LLMock } from "@copilotkit/aimock";
import { announce, endWithParent } from "./serve.mjs";

const { values } = parseArgs({
  options: {
    port: { type: "string", default: "0" },
    fixtures: { type: "string", default: fileURLToPath(new URL("fixtures/llm.json", import.meta.url)) },
    "api-key": { type: "string" },
  },
});

endWithParent();
const auth = values["api-key"] ? { auth: { apiKeys: [values["api-key"]] } } : {};
const mock = new LLMock({ host: "127.0.0.1", port: Number(values.port), ...auth });
mock.loadFixtureFile(values.fixtures);
// aimock has no token counting; four bytes per token will do for a mock.
mock.mount("/v1/messages/count_tokens", {
  async handleRequest(request, response) {
    const parts = [];
    for await (const part of request) parts.push(part);
    const messages = JSON.stringify(JSON.parse(Buffer.concat(parts)).messages);
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ input_tokens: Math.ceil(messages.length / 4) }));
    return true;
  },
});
await mock.start();
announce(new URL(mock.url).port);
