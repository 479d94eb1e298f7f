// The MCP reference server over streamable HTTP at /mcp, on loopback only.
//
//   node everything.mjs [--port 0]
//
// It binds every interface by itself, so `listen` is given a host before it is loaded; its
// chatter goes to standard error because standard output carries the address alone.
import { Server } from "node:net";
import { parseArgs } from "node:util";
import { announce, endWithParent } from "./serve.mjs";

const { values } = parseArgs({ options: { port: { type: "string", default: "0" } } });

endWithParent();
console.log = console.error;
// Its `get-env` tool prints the environment; a test's output is no place for ours.
for (const name of Object.keys(process.env)) delete process.env[name];
process.env.PORT = values.port;
const { listen } = Server.prototype;
Server.prototype.listen = function (port, ...rest) {
  this.once("listening", () => announce(this.address().port));
  return listen.call(this, Number(port), "127.0.0.1", ...rest);
};
await import("./node_modules/@modelcontextprotocol/server-everything/dist/transports/streamableHttp.js");
