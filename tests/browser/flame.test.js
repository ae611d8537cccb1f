// The flame graphs in a real browser: from a plot to the line of code, by clicks alone.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { missing, newPage, startBrowser, startDemo, startService } from "./service.js";

const skip = missing ? `skipped: ${missing}` : false;
const pictures = new URL("../../target/screenshots/", import.meta.url).pathname;

let demo, service, browser;
before(async () => {
  if (skip) return;
  mkdirSync(pictures, { recursive: true });
  [demo, service, browser] = [await startDemo(), await startService(), await startBrowser()];
});
after(async () => {
  await browser?.close();
  await service?.stop();
  await demo?.stop();
});

const seconds = (count) => new Promise((done) => setTimeout(done, count * 1000));

/** The number of the line of a source that contains a text. */
const lineOf = (file, text) => {
  const lines = readFileSync(new URL(`../../${file}`, import.meta.url), "utf8").split("\n");
  const index = lines.findIndex((line) => line.includes(text));
  assert.ok(index >= 0, `${file} has no ${text}`);
  return index + 1;
};

/** Clicks the link of a plot to its code. */
async function code(page, title) {
  await page.locator(`figure[data-plot="${title}"] a.profile`).click();
  await page.locator("#flame svg.flame").waitFor();
}

/** The texts of the places, the largest first. */
const places = (page) => page.locator(".places li").allTextContents();

test("the memory leak of the demo is found by clicking", { skip }, async () => {
  const { page, wrong, close } = await newPage(browser, demo.url);
  await code(page, "Memory");
  await page.getByText("Growth from now on").click();
  await page.waitForURL(/since=\d+/);
  await seconds(8);
  await page.locator(".actions a", { hasText: "Growth since" }).first().click();
  await page.locator("#flame svg.flame").waitFor();
  const [first] = await places(page);
  const line = lineOf("demo/load.rs", "cache.push(vec![1; 64_000])");
  assert.match(first, /demo::load::fill_cache/);
  assert.ok(first.endsWith(`demo/load.rs:${line}`), first);
  assert.match(first, /^[\d.]+ MB/, "it has grown by 256 kB a second");
  // The place leads to its function in the picture.
  await page.locator(".places button").first().click();
  assert.match(await page.locator("#detail").textContent(), new RegExp(`fill_cache.*\n.*demo/load.rs:${line}\n`));
  await page.screenshot({ path: `${pictures}flame-leak.png`, fullPage: true });
  assert.deepEqual(wrong, []);
  await close();
});

test("a flame graph zooms and finds without a request", { skip }, async () => {
  const { page, wrong, close } = await newPage(browser, demo.url);
  await code(page, "Memory");
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  const width = (frame) => frame.evaluate((node) => node.getBoundingClientRect().width);
  const frames = page.locator("svg.frame");
  const whole = await width(frames.first());
  const leak = frames.filter({ hasText: "load::fill_cache" }).last();
  const before = await width(leak);
  assert.ok(before > 0 && before < whole, `${before} of ${whole}`);
  await leak.click();
  assert.ok(Math.abs((await width(leak)) - whole) < 2, "it is as wide as the picture");
  assert.equal(await frames.first().evaluate((node) => node.classList.contains("holds")), true);
  await page.keyboard.press("Escape");
  assert.ok(Math.abs((await width(leak)) - before) < 2, "it is as before");
  await page.locator("#search").fill("LOAD.RS");
  assert.match(await page.locator("#found").textContent(), /^\d+ found, [\d.]+ %$/);
  const found = page.locator("svg.frame.found");
  assert.ok((await found.count()) > 0);
  const fill = (frame) => frame.locator("rect").first().evaluate((node) => getComputedStyle(node).fill);
  assert.notEqual(await fill(found.first()), await fill(frames.first()));
  await page.locator("#search").fill("no such function");
  assert.equal(await page.locator("#found").textContent(), "0 found, 0.0 %");
  await page.getByText("whole picture").click();
  assert.equal(await page.locator("#found").textContent(), "");
  assert.deepEqual(requests, []);
  assert.deepEqual(wrong, []);
  await close();
});

test("tasks and CPU time lead to their code", { skip }, async () => {
  const { page, wrong, close } = await newPage(browser, demo.url);
  await code(page, "Tasks");
  assert.ok((await page.locator("svg.frame", { hasText: "subscriber" }).count()) > 0, "tasks by name");
  await page.goto(demo.url);
  await page.locator('figure[data-plot="Busy"] a.profile').click();
  await page.waitForURL(/flame\/profile/);
  const button = page.locator("a.button[data-wait]");
  assert.match(await button.textContent(), /10 seconds/);
  const begun = Date.now();
  await button.click();
  await page.waitForURL(/seconds=10/);
  await page.locator("#flame svg.flame").waitFor();
  assert.ok(Date.now() - begun >= 10_000);
  assert.ok((await page.locator("svg.frame", { hasText: "load::report" }).count()) > 0, "it computes for 500 ms in 5 s");
  assert.deepEqual(wrong, []);
  await close();
});

test("stalls lead to their code", { skip }, async () => {
  const { page, wrong, close } = await newPage(browser, service.url);
  // A stack is taken of most stalls of some seconds.
  for (let tries = 0; tries < 20; tries += 1) {
    service.send("stall 2");
    await seconds(3);
    await page.goto(service.url);
    await page.locator('figure[data-plot="Stalled workers"] a.profile').click();
    await page.waitForURL(/flame\/stalls/);
    if ((await places(page)).length > 0) break;
  }
  const line = lineOf("examples/debug_page.rs", "std::thread::sleep(time);");
  const [first] = await places(page);
  assert.match(first, /^[\d.]+ s debug_page::ask_database/);
  assert.ok(first.endsWith(`examples/debug_page.rs:${line}`), first);
  assert.deepEqual(wrong, []);
  await close();
});

test("the banner of a stall shows function, file and line", { skip }, async () => {
  const { page, wrong, close } = await newPage(browser, service.url);
  await page.locator('#connection[data-state="on"]').waitFor();
  // Long enough for the look-up of names in an executable that is not optimised.
  service.send("stall 60");
  const line = lineOf("examples/debug_page.rs", "std::thread::sleep(time);");
  const place = `in debug_page::ask_database at `;
  const banner = page.locator('#stall[data-stalled="yes"]', { hasText: place });
  await banner.waitFor({ timeout: 60_000 });
  assert.ok((await banner.textContent()).includes(`examples/debug_page.rs:${line}`), await banner.textContent());
  await banner.locator("a").click();
  await page.locator("#flame svg.flame").waitFor();
  assert.match((await places(page)).join("\n"), /debug_page::ask_database/);
  assert.deepEqual(wrong, []);
  await close();
});

test("a flame graph can be read in the light, in the dark and on a phone", { skip }, async () => {
  const looks = {
    "flame-light": { colorScheme: "light" },
    "flame-dark": { colorScheme: "dark" },
    "flame-phone": { colorScheme: "light", viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true },
  };
  const backgrounds = new Set();
  for (const [name, options] of Object.entries(looks)) {
    const { page, wrong, close } = await newPage(browser, `${new URL("/debug/runtime/flame/heap", demo.url)}`, options);
    await page.locator("#flame svg.flame").waitFor();
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `${name}: ${overflow} pixels too wide`);
    const frame = page.locator("svg.frame").nth(1);
    const size = await frame.locator("text").evaluate((node) => parseFloat(getComputedStyle(node).fontSize));
    assert.ok(size >= 11, `${name}: the text has ${size} pixels`);
    if (options.hasTouch) await frame.tap();
    else await frame.click();
    assert.notEqual(await page.locator("#detail").textContent(), "Select a function to zoom in.");
    if (name !== "flame-phone") backgrounds.add(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
    await page.screenshot({ path: `${pictures}${name}.png`, fullPage: true });
    assert.deepEqual(wrong, []);
    await close();
  }
  assert.equal(backgrounds.size, 2);
});
