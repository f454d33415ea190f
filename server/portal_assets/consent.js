"use strict";
// Tells the server yes or no as JSON, which no other site can do, and goes where it says.
const form = document.querySelector("form");
const said = document.querySelector("[role=alert]");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const buttons = form.querySelectorAll("button");
  buttons.forEach((button) => { button.disabled = true; });
  said.textContent = "";
  try {
    const answer = await fetch(window.location.href, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ allow: event.submitter.value === "allow" }),
    });
    const body = await answer.json();
    if (answer.ok) {
      window.location.assign(body.location);
      return;
    }
    said.textContent = body.message;
  } catch {
    said.textContent = "The server does not answer. Try again in a moment.";
  }
  buttons.forEach((button) => { button.disabled = false; });
});
