"use strict";

// The server draws; each event is the part of the page that changes.
const plots = document.getElementById("plots");
const connection = document.getElementById("connection");

function say(state, text) {
  connection.dataset.state = state;
  connection.textContent = text;
}

const events = new EventSource("runtime/plots");
events.onopen = () => say("on", "live");
events.onerror = () => say("off", "connection lost, trying again");
// A click needs the same link from press to release, and the keyboard needs the link that it has reached.
let [pressed, latest] = [false, undefined];
function show() {
  if (pressed || latest === undefined) return;
  const links = () => Array.from(plots.querySelectorAll("a"));
  const focused = links().indexOf(document.activeElement);
  plots.innerHTML = latest;
  latest = undefined;
  links()[focused]?.focus();
}
events.onmessage = (event) => {
  latest = event.data;
  show();
};
addEventListener("pointerdown", () => (pressed = true));
for (const end of ["pointerup", "pointercancel"]) {
  addEventListener(end, () => setTimeout(() => {
    pressed = false;
    show();
  }));
}
