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
events.onmessage = (event) => {
  plots.innerHTML = event.data;
};
