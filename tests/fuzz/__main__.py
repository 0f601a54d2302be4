"""Fuzzes the wire: ``python -m tests.fuzz --seconds 60``.

The status is not 0 if something was found; then the input that shows it has been written, as a
``crash-`` file, and ``python -m tests.fuzz --again FILE`` shows it again.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

_LINES = ("Connection: close", "Connection: keep-alive", "Expect: 100-continue", "Host: h")
_OTHER_LINES = ("Content-Length: 5", "Transfer-Encoding: chunked", "Proxy-Connection: close")
_WORDS = ("GET / HTTP/1.1", "POST / HTTP/1.0", "HEAD ", "OPTIONS ", "http://h", "Upgrade: ", "h2c")
_SIGNS = (
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "\0",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    ";a=b",
    ';a="b"',
    "*",
)

#: What mutations put in.
_TOKENS = (*_LINES, *(f"{line}\r\n" for line in (*_LINES, *_OTHER_LINES)), *_WORDS, *_SIGNS)


def _quoted(token: str) -> str:
    """A token as libFuzzer's dictionaries have it."""
    return "".join(f"\\x{ord(sign):02x}" for sign in token)


def main() -> None:
    """Read the command line, and fuzz; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="how long (default: 60)")
    parser.add_argument("--into", type=Path, default=Path("build/fuzz"), help="for what is found")
    parser.add_argument("--again", type=Path, help="try one input that was found, and no other")
    options = parser.parse_args()
    if options.again is not None:
        _again(options.again)
        return
    atheris: Any = importlib.import_module("atheris")  # an extra: make types does without
    with atheris.instrument_imports(include=["deferpost.wire", "httptools", "tests.wire.answers"]):
        inputs = importlib.import_module("tests.fuzz.inputs")
    seeds, grown = options.into / "seeds", options.into / "corpus"
    grown.mkdir(parents=True, exist_ok=True)
    inputs.write_seeds(seeds)
    words = options.into / "words"
    words.write_text("".join(f'"{_quoted(token)}"\n' for token in _TOKENS), encoding="ascii")
    arguments = [
        sys.argv[0],
        f"-max_total_time={options.seconds}",
        "-max_len=2000",
        "-timeout=20",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        f"-dict={words}",
        f"-artifact_prefix={options.into}/",
        str(grown),
        str(seeds),
    ]
    atheris.Setup(arguments, inputs.try_input)
    atheris.Fuzz()


def _again(file: Path) -> None:
    inputs = importlib.import_module("tests.fuzz.inputs")
    data = file.read_bytes()
    print(inputs.read(data))
    try:
        inputs.try_input(data)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    print("nothing is wrong with it")


if __name__ == "__main__":
    main()
