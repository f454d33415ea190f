"use strict";
// Sends the login form as JSON, which no other site can do, and goes where the server allowed.
const form = document.querySelector("form");
const said = document.querySelector("[role=alert]");

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  said.textContent = "";
  try {
    const answer = await fetch(form.dataset.login, {
      method: "POST",
      headers: { "content-type": "application/json", "accept-language": "en" },
      body: JSON.stringify({
        username_or_email: form.elements.username.value,
        password: form.elements.password.value,
      }),
    });
    const body = await answer.json();
    if (body.code === 200) {
      window.location.assign(form.dataset.next);
      return;
    }
    said.textContent = body.message;
  } catch {
    said.textContent = "The server does not answer. Try again in a moment.";
  }
  button.disabled = false;
});
