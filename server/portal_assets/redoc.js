// Redoc over the document that the page names. Nothing is sent anywhere: telemetry is off here, and
// the page's Content-Security-Policy lets it connect to this server alone.
const page = document.getElementById("viewer");
const { init } = await import(page.dataset.viewer);
init(page.dataset.document, { disableTelemetry: true, router: "hash" }, page);
