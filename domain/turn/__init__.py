"""One turn of an agent: what was asked, the prompt, the loop, and what it tells as it goes."""
