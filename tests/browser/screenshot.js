// Takes the picture for the README of a service that is busy for a minute. `npm run screenshot`.

import { startBrowser, startService } from "./service.js";

const picture = new URL("../../docs/debug-page.png", import.meta.url).pathname;
const seconds = (count) => new Promise((done) => setTimeout(done, count * 1000));

const [service, browser] = [await startService(), await startBrowser()];
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  await page.goto(service.url);
  for (const megabytes of [8, 12, 20, 6, 9, 14]) {
    service.send(`allocate ${megabytes}`);
    service.send(`spawn ${megabytes * 4}`);
    await seconds(3);
  }
  service.send("stall 4");
  await seconds(8);
  service.send("free");
  for (const megabytes of [5, 5, 10, 5, 5, 10, 5]) {
    await seconds(3);
    service.send(`allocate ${megabytes}`);
    service.send(`spawn ${megabytes}`);
  }
  await seconds(4);
  await page.screenshot({ path: picture, fullPage: true });
  console.log(picture);
} finally {
  await browser.close();
  await service.stop();
}
