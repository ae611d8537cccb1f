// The example `debug_page` and the demo as child processes, and a browser to look at them with.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const program = process.env.DEBUG_PAGE ?? new URL("../../target/debug/examples/debug_page", import.meta.url).pathname;
const demo = process.env.DEMO ?? new URL("../../target/debug/demo", import.meta.url).pathname;
const browser = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Why the tests cannot run here, if so. */
export const missing = [program, demo, browser].filter((path) => !existsSync(path)).map((path) => `${path} is not there`)[0];

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

/** Starts the demo with its page on a free port. */
export async function startDemo() {
  const environment = { ...process.env };
  delete environment.OTEL_EXPORTER_OTLP_ENDPOINT;
  const child = spawn(demo, ["--page", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "inherit"], env: environment });
  const lines = createInterface({ input: child.stdout });
  const url = await new Promise((found) => {
    lines.on("line", (line) => line.startsWith("page: ") && found(line.slice(6)));
  });
  return {
    url,
    stop: async () => {
      const ended = child.exitCode ?? once(child, "exit");
      child.kill("SIGTERM");
      await ended;
    },
  };
}

/**
 * A new page with all that went wrong on it or left for elsewhere in `wrong`. Answers may take long: names are looked up in
 * an executable that is not optimised.
 */
export async function newPage(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(300_000);
  page.setDefaultNavigationTimeout(300_000);
  const wrong = [];
  page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
  page.on("pageerror", (error) => wrong.push(String(error)));
  // Leaving the page aborts the events, as it should.
  page.on("requestfailed", (request) => {
    const why = request.failure().errorText;
    if (why !== "net::ERR_ABORTED") wrong.push(`${request.url()}: ${why}`);
  });
  page.on("request", (request) => new URL(request.url()).host === new URL(url).host
    || request.url().startsWith("data:") || wrong.push(`asked ${request.url()}`));
  await page.goto(url);
  return { page, wrong, close: () => context.close() };
}

export function startBrowser() {
  const args = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"];
  const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"];
  return chromium.launch({ executablePath: browser, args: [...args, ...quiet] });
}
