"""An OpenAI-compatible embedding server, in a process of its own.

    python -m tests.knowledge.embedding_server PORT KEY

Prints its port, and serves any model "<name>-<dimensions>": a text's vector counts its trigrams, at
places that the model's name decides, so that misspelt words are near and two models are strangers.
GET /calls is how many texts each model was asked for.
"""

import json
import sys
import zlib
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CALLS: Counter[str] = Counter()


def vector(model: str, text: str) -> list[float]:
    made = [0.0] * int(model.rpartition("-")[2])
    padded = f"  {text.lower()}  "
    for at in range(len(padded) - 2):
        made[zlib.crc32(f"{model} {padded[at : at + 3]}".encode()) % len(made)] += 1.0
    return made


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(200, CALLS)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["authorization"] != f"Bearer {sys.argv[2]}":
            self.answer(401, {"error": {"message": "Incorrect API key provided"}})
        elif self.path != "/v1/embeddings":
            self.answer(404, {"error": {"message": "Not found"}})
        else:
            CALLS[body["model"]] += len(body["input"])
            data = [
                {"object": "embedding", "index": place, "embedding": vector(body["model"], text)}
                for place, text in enumerate(body["input"])
            ]
            self.answer(200, {"object": "list", "data": data, "model": body["model"]})

    def answer(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
