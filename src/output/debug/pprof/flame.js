"use strict";

// The server draws the flame graph. This zooms and searches in it; nothing is requested.
const detail = document.getElementById("detail");
const search = document.getElementById("search");
const found = document.getElementById("found");

// Each frame with its place in the whole picture, in percent and rows. Callers come before what they call.
const frames = Array.from(document.querySelectorAll("svg.frame"), (node) => ({
  node,
  x: parseFloat(node.getAttribute("x")),
  width: parseFloat(node.getAttribute("width")),
  y: Number(node.getAttribute("y")),
  title: node.querySelector("title").textContent,
}));
// Positions are written with four digits.
const SLACK = 0.001;

function zoom(to) {
  for (const frame of frames) {
    const holds = frame.y < to.y && frame.x <= to.x + SLACK && frame.x + frame.width >= to.x + to.width - SLACK;
    const inside = frame.y >= to.y && frame.x >= to.x - SLACK && frame.x + frame.width <= to.x + to.width + SLACK;
    frame.node.classList.toggle("holds", holds);
    frame.node.classList.toggle("hidden", !holds && !inside);
    const x = holds ? 0 : ((frame.x - to.x) / to.width) * 100;
    const width = holds ? 100 : (frame.width / to.width) * 100;
    frame.node.setAttribute("x", `${x}%`);
    frame.node.setAttribute("width", `${width}%`);
  }
  detail.textContent = to.title;
}

function find(text) {
  const wanted = text.trim().toLowerCase();
  let [share, end, count] = [0, 0, 0];
  for (const frame of frames) {
    const matches = wanted !== "" && frame.title.toLowerCase().includes(wanted);
    frame.node.classList.toggle("found", matches);
    if (!matches) continue;
    count += 1;
    // What a found function calls is part of it.
    if (frame.x >= end - SLACK) {
      share += frame.width;
      end = frame.x + frame.width;
    }
  }
  found.textContent = wanted === "" ? "" : `${count} found, ${share.toFixed(1)} %`;
}

if (frames.length > 0) {
  for (const frame of frames) frame.node.addEventListener("click", () => zoom(frame));
  search.addEventListener("input", () => find(search.value));
  document.getElementById("reset").addEventListener("click", () => {
    zoom(frames[0]);
    search.value = "";
    find("");
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && zoom(frames[0]));
}
for (const button of document.querySelectorAll("[data-find]")) {
  button.addEventListener("click", () => {
    search.value = button.dataset.find;
    find(search.value);
    const first = frames.find((frame) => frame.title.split("\n")[0] === button.dataset.find);
    if (first) zoom(first);
  });
}
for (const link of document.querySelectorAll("[data-wait]")) {
  link.addEventListener("click", () => {
    link.textContent = `${link.dataset.wait} seconds …`;
    link.setAttribute("aria-busy", "true");
  });
}
