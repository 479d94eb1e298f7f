// Runs named scenarios of one foreign client and prints one JSON line for each.
//
// The contract is that of `../python/scenario.py`: options, then scenario names; one JSON line
// per scenario on standard output; `error_class` is the SDK's own; exit code 0 when all were
// reported. Calls go through undici because that is where Node takes client certificates.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";
import { Agent, fetch as undiciFetch } from "undici";

// Headers worth asserting on; others would only make the output vary.
const HEADERS = [
  "content-type",
  "mcp-session-id",
  "request-id",
  "retry-after",
  "www-authenticate",
  "x-request-id",
  "x-should-retry",
];

const OPTIONS = {
  url: { type: "string" },
  ca: { type: "string" },
  cert: { type: "string" },
  key: { type: "string" },
  header: { type: "string", multiple: true, default: [] },
  timeout: { type: "string", default: "20" },
};

/** A `fetch` with our certificates that counts what the SDK really sends. */
function wire(settings) {
  const connect = {};
  if (settings.ca) connect.ca = readFileSync(settings.ca);
  if (settings.cert) connect.cert = readFileSync(settings.cert);
  if (settings.key) connect.key = readFileSync(settings.key);
  const dispatcher = new Agent({ connect });
  const seen = { requests: 0, statuses: [], headers: {}, session: null, dispatcher };
  seen.fetch = async (url, init = {}) => {
    seen.requests += 1;
    const headers = new Headers(init.headers);
    for (const header of settings.header) {
      const split = header.indexOf("=");
      headers.set(header.slice(0, split), header.slice(split + 1));
    }
    const response = await undiciFetch(url, { ...init, headers: Object.fromEntries(headers), dispatcher });
    seen.statuses.push(response.status);
    seen.headers = Object.fromEntries(
      HEADERS.filter((name) => response.headers.has(name)).map((name) => [name, response.headers.get(name)]),
    );
    seen.session = response.headers.get("mcp-session-id") ?? seen.session;
    return response;
  };
  return seen;
}

/** What an agent's `catch` block would see of this error. */
export function describe(error) {
  const bases = [];
  for (let base = error?.constructor; base && base !== Error && base.name; base = Object.getPrototypeOf(base)) {
    bases.push(base.name);
  }
  return {
    error_class: error?.constructor?.name ?? typeof error,
    error_bases: bases,
    status: error?.status ?? null,
    code: error?.code ?? error?.errorCode ?? null,
    type: error?.type ?? null,
    request_id: error?.requestID ?? null,
    message: String(error?.message ?? error),
    cause: error?.cause ? String(error.cause.cause ?? error.cause) : null,
    body: error?.error ?? null,
  };
}

/** An error that also carries what had arrived before it, such as the chunks of a cut stream. */
export async function gather(facts, read) {
  try {
    await read(facts);
  } catch (error) {
    error.facts = facts;
    throw error;
  }
  return facts;
}

async function within(seconds, work) {
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new DOMException(`no end within ${seconds} s`, "TimeoutError")), seconds * 1000);
  });
  return Promise.race([work, deadline]).finally(() => clearTimeout(timer));
}

function installedVersion(name) {
  // `exports` may hide a package's own package.json from `import`.
  const paths = createRequire(import.meta.url).resolve.paths(name);
  return JSON.parse(readFileSync(`${paths[0]}/${name}/package.json`)).version;
}

/** Parses the command line and runs the asked scenarios one after the other. */
export async function run(client, name, options, scenarios) {
  const { values, positionals } = parseArgs({ options: { ...OPTIONS, ...options }, allowPositionals: true });
  const names = positionals.length === 1 && positionals[0] === "all" ? Object.keys(scenarios) : positionals;
  const unknown = names.find((each) => !Object.hasOwn(scenarios, each));
  if (!values.url || names.length === 0 || unknown) {
    const known = Object.keys(scenarios).join(" ");
    console.error(`${unknown ? `unknown scenario ${unknown}` : "usage: --url URL [options] SCENARIO…"}; known: ${known}`);
    process.exit(2);
  }
  const version = installedVersion(name);
  for (const scenario of names) {
    const seen = wire(values);
    let line = {
      client,
      version,
      scenario,
      ok: true,
      error_class: null,
      error_bases: [],
      status: null,
      code: null,
      type: null,
      message: null,
    };
    const start = performance.now();
    try {
      line = { ...line, ...(await within(Number(values.timeout), scenarios[scenario](values, seen))) };
    } catch (error) {
      line = { ...line, ok: false, ...describe(error), ...error?.facts };
    }
    const { requests, statuses, headers } = seen;
    line = { ...line, requests, statuses, headers, elapsed_ms: Math.round(performance.now() - start) };
    process.stdout.write(`${JSON.stringify(line)}\n`);
    await seen.dispatcher.destroy();
  }
  process.exit(0);
}
