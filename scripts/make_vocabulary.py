#!/usr/bin/env python3
"""Makes data/o200k_harmony.vocab.zst, the vocabulary that is embedded in the binary, from a tokenizer.json.

usage: scripts/make_vocabulary.py TOKENIZER_JSON [OUT]

Layout before compression (read by src/tokenizer/embedded_vocabulary.cc), little endian: 8 bytes "GPTOSSV1", uint32 number
of ordinary tokens, uint32 bytes of all tokens, uint64 FNV-1a of all that follows; then one length byte a token in the
order of ids, then the bytes of the tokens. Special tokens are not in it: they are a table in the program.
Needs the zstd command.
"""

import json
import pathlib
import struct
import subprocess
import sys


def alphabet():
    """GPT-2's characters for bytes, back to bytes (github.com/openai/gpt-2, src/encoder.py)."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(b): b for b in own}
    for i, b in enumerate(b for b in range(256) if b not in own):
        table[chr(256 + i)] = b
    return table


def fnv1a64(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    root = pathlib.Path(__file__).resolve().parent.parent
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else root / "data" / "o200k_harmony.vocab.zst"
    vocab = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))["model"]["vocab"]
    table = alphabet()
    tokens = [b""] * len(vocab)
    for text, token_id in vocab.items():
        if not 0 <= token_id < len(tokens) or tokens[token_id]:
            sys.exit(f"{sys.argv[1]}: id {token_id} is out of range or given twice")
        tokens[token_id] = bytes(table[c] for c in text)
        if not 1 <= len(tokens[token_id]) <= 255:
            sys.exit(f"{sys.argv[1]}: token {token_id} is empty or longer than 255 bytes")
    body = bytes(len(t) for t in tokens) + b"".join(tokens)
    header = b"GPTOSSV1" + struct.pack("<IIQ", len(tokens), len(body) - len(tokens), fnv1a64(body))
    # The size goes into the frame's header: the program allocates by it.
    command = ["zstd", "--ultra", "-22", "--no-check", f"--stream-size={len(header) + len(body)}", "-c"]
    packed = subprocess.run(command, input=header + body, stdout=subprocess.PIPE, check=True).stdout
    out.write_bytes(packed)
    print(f"{out}: {len(tokens)} tokens, {len(header) + len(body)} bytes, {len(packed)} compressed")


if __name__ == "__main__":
    main()
