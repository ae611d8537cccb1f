// The page in a real browser: it moves with what the service does, and forgets nothing.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { missing, newPage, startBrowser, startService } from "./service.js";

const skip = missing ? `skipped: ${missing}` : false;
const pictures = new URL("../../target/screenshots/", import.meta.url).pathname;
const LONG = 60_000;

let service, browser;
before(async () => {
  if (skip) return;
  [service, browser] = [await startService(), await startBrowser()];
});
after(async () => {
  await browser?.close();
  await service?.stop();
});

/** A page that has shown something, and everything that went wrong on it or left for elsewhere. */
async function open(options = {}) {
  const { page, wrong, close } = await newPage(browser, service.url, options);
  await page.locator('#connection[data-state="on"]').waitFor({ timeout: LONG });
  await page.locator("figure svg").first().waitFor({ timeout: LONG });
  return { page, wrong, close };
}

const figure = (page, title) => page.locator(`figure[data-plot="${title}"]`);

/** The points of a plot's first line, as the browser has them. */
const line = (page, title, colour = "#030000") =>
  figure(page, title).locator(`polyline[stroke="${colour}"]`).first().getAttribute("points");

/** A plot's latest value under a name, in base units. */
async function value(page, title, name) {
  const items = figure(page, title).locator("li", { has: page.getByText(name, { exact: true }) });
  const [number, unit] = (await items.first().locator(".value").textContent()).split(" ");
  return Number(number) * ({ kB: 1e3, MB: 1e6, GB: 1e9, k: 1e3 }[unit] ?? 1);
}

async function until(what, holds) {
  const end = Date.now() + LONG;
  while (!(await holds().catch(() => false))) {
    assert.ok(Date.now() < end, `${what}: not within ${LONG} ms`);
    await new Promise((again) => setTimeout(again, 100));
  }
}

test("the plots move when the service allocates", { skip }, async () => {
  const { page, wrong, close } = await open();
  await until("two samples", async () => (await line(page, "Memory")).split(" ").length > 2);
  const before = { used: await value(page, "Memory", "used"), line: await line(page, "Memory") };
  service.send("allocate 64");
  await until("64 MB more", async () => (await value(page, "Memory", "used")) >= before.used + 60e6);
  assert.notEqual(await line(page, "Memory"), before.line);
  // Pages become resident when they are written.
  await until("64 MB resident", async () => (await value(page, "Memory", "resident")) >= 60e6);
  service.send("free");
  await until("64 MB less", async () => (await value(page, "Memory", "used")) < before.used + 60e6);
  assert.ok((await value(page, "Memory", "peak")) >= 60e6, "the peak stays");
  assert.ok((await value(page, "Allocations a second", "allocations")) > 0);
  assert.deepEqual(wrong, []);
  await close();
});

test("tasks show by name", { skip }, async () => {
  const { page, wrong, close } = await open();
  const before = await value(page, "Tasks", "alive");
  service.send("spawn 300");
  await until("300 tasks more", async () => (await value(page, "Tasks", "alive")) >= before + 300);
  await until("by name", async () => (await value(page, "Tasks by name", "forgotten")) === 300);
  assert.deepEqual(wrong, []);
  await close();
});

test("a stall shows while it lasts, then no more, and the plot remembers", { skip }, async () => {
  const { page, wrong, close } = await open();
  const stall = (state) => page.locator(`#stall[data-stalled="${state}"]`);
  await stall("no").waitFor({ timeout: LONG });
  const begun = Date.now();
  service.send("stall 5");
  await stall("yes").waitFor({ timeout: LONG });
  assert.ok(Date.now() - begun < 4_500, "while it lasts");
  assert.match(await stall("yes").textContent(), /no progress for [\d.]+ m?s; runtime: service/);
  assert.ok((await value(page, "Stalled workers", "stalled")) > 0);
  await page.screenshot({ path: `${pictures}stall.png`, fullPage: true });
  await stall("no").waitFor({ timeout: LONG });
  await page.reload();
  await page.locator('#connection[data-state="on"]').waitFor({ timeout: LONG });
  const heights = (await line(page, "Stalled workers")).trim().split(" ").map((point) => Number(point.split(",")[1]));
  assert.ok(Math.min(...heights) < Math.max(...heights), "the reloaded plot still has the stall in it");
  assert.deepEqual(wrong, []);
  await close();
});

test("a reload keeps the history, and so does a second viewer", { skip }, async () => {
  const first = await open();
  const length = async (page) => (await line(page, "Memory")).trim().split(" ").length;
  await until("ten samples", async () => (await length(first.page)) >= 10);
  const before = await length(first.page);
  // What the server sends at once, before any event and without any script.
  const html = await (await fetch(service.url)).text();
  assert.ok(html.match(/stroke="#030000"[^>]*points="([^"]*)"|points="([^"]*)"[^>]*stroke="#030000"/)?.[0].split(" ").length >= before);
  await first.page.reload();
  await first.page.locator("figure svg").first().waitFor({ timeout: LONG });
  assert.ok((await length(first.page)) >= before);
  const others = await Promise.all([open(), open()]);
  for (const { page } of others) assert.ok((await length(page)) >= before);
  for (const viewer of [first, ...others]) {
    const last = await line(viewer.page, "Memory");
    await until("it moves for each viewer", async () => (await line(viewer.page, "Memory")) !== last);
    assert.deepEqual(viewer.wrong, []);
    await viewer.close();
  }
});

test("it can be read in the light, in the dark and on a phone", { skip }, async () => {
  mkdirSync(pictures, { recursive: true });
  const looks = {
    light: { colorScheme: "light" },
    dark: { colorScheme: "dark" },
    phone: { colorScheme: "light", viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 },
  };
  const backgrounds = new Set();
  for (const [name, options] of Object.entries(looks)) {
    const { page, wrong, close } = await open(options);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `${name}: ${overflow} pixels too wide`);
    const colours = await page.evaluate(() => {
      const style = (selector, property) => getComputedStyle(document.querySelector(selector))[property];
      return [style("body", "backgroundColor"), style("body", "color"), style("svg polyline[stroke^='#03']", "stroke")];
    });
    assert.notEqual(colours[0], colours[1]);
    assert.ok(!colours[2].startsWith("rgb(3, 0"), "the style sheet gives the lines their colours");
    if (name !== "phone") backgrounds.add(colours[0]);
    await page.screenshot({ path: `${pictures}${name}.png`, fullPage: true });
    assert.deepEqual(wrong, []);
    await close();
  }
  assert.equal(backgrounds.size, 2);
});

test("a lost connection is said and mended", { skip }, async () => {
  const own = await startService();
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(own.url);
  await page.locator('#connection[data-state="on"]').waitFor({ timeout: LONG });
  await own.stop();
  await page.locator('#connection[data-state="off"]').waitFor({ timeout: LONG });
  assert.match(await page.locator("#connection").textContent(), /lost/);
  await context.close();
});
