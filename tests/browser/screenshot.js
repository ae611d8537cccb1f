// Takes the picture for the README: a service with a life of its own for a minute. `npm run screenshot`.

import { startBrowser, startService } from "./service.js";

const picture = new URL("../../docs/debug-page.png", import.meta.url).pathname;
const seconds = (count) => new Promise((done) => setTimeout(done, count * 1000));

const [service, browser] = [await startService(), await startBrowser()];
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  await page.goto(service.url);
  for (const megabytes of [8, 12, 20, 6, 9, 14]) {
    service.tell(`allocate ${megabytes}`);
    service.tell(`spawn ${megabytes * 4}`);
    await seconds(3);
  }
  service.tell("stall 4");
  await seconds(8);
  service.tell("free");
  for (const megabytes of [5, 5, 10, 5, 5, 10, 5]) {
    await seconds(3);
    service.tell(`allocate ${megabytes}`);
    service.tell(`spawn ${megabytes}`);
  }
  await seconds(4);
  await page.screenshot({ path: picture, fullPage: true });
  console.log(picture);
} finally {
  await browser.close();
  await service.stop();
}
