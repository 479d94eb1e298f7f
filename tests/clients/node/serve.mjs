// What both launchers share: announce the port that was chosen, end with the test that started us.

/** Prints the one line a test waits for, then leaves standard output alone. */
export function announce(port) {
  process.stdout.write(`${JSON.stringify({ listening: `127.0.0.1:${port}`, pid: process.pid })}\n`);
}

/** Exits when standard input closes, so a test that dies takes its servers with it. */
export function endWithParent() {
  process.stdin.on("end", () => process.exit(0));
  process.stdin.on("error", () => process.exit(0));
  process.stdin.resume();
}
