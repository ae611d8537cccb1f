// The example `debug_page` as a child process, and a browser to look at it with.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const program = process.env.DEBUG_PAGE ?? new URL("../../target/debug/examples/debug_page", import.meta.url).pathname;
const browser = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Why the tests cannot run here, if so. */
export const missing = [program, browser].filter((path) => !existsSync(path)).map((path) => `${path} is not there`)[0];

/** Starts the service. `send` writes a line to its standard input; `stop` ends it. */
export async function startService() {
  const child = spawn(program, [], { stdio: ["pipe", "pipe", "inherit"] });
  const [url] = await once(createInterface({ input: child.stdout }), "line");
  return {
    url,
    send: (line) => child.stdin.write(`${line}\n`),
    stop: async () => {
      const ended = child.exitCode ?? once(child, "exit");
      child.stdin.end();
      await ended;
    },
  };
}

export function startBrowser() {
  const args = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"];
  const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"];
  return chromium.launch({ executablePath: browser, args: [...args, ...quiet] });
}
