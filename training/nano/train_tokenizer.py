#!/usr/bin/env python3
"""Makes the tokenizer.json of the embedded model from a sample of its data.

  train_tokenizer.py --gptoss build/release/gptoss --data train.jsonl --size 1536 --out models/nano/tokenizer.json

The form is that of o200k_harmony: bytes first, the split pattern of o200k, a piece that is a token is taken whole (as
tiktoken does), the harmony markers at the end. The tokens beyond the 256 bytes are the most frequent whole pieces. There
are no parts of words among them, so a word that is not a token is read letter by letter: tasks on letters, and names
never seen, can then be learnt by a very small model. Digits are single for the same reason.
"""

import argparse
import collections
import json
import pathlib
import re
import subprocess

from nano_data.words import SPELLING_WORDS

PATTERN = (
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
# The same for ASCII, which is all that the data has.
ASCII_SPLIT = re.compile(
    r"""[^\r\na-zA-Z0-9]?[A-Z]*[a-z]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\na-zA-Z0-9]?[A-Z]+[a-z]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|[0-9]{1,3}| ?[^\sa-zA-Z0-9]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
MARKERS = ["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>", "<|end|>",
           "<|message|>", "<|call|>"]
LEAST_COUNT = 8  # a rarer piece would hardly be learnt


def alphabet():
    """GPT-2's spelling of the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def may_be_token(piece, spelt):
    letters = piece.strip(' "').lower()
    if len(piece) < 2 or any(c.isdigit() for c in piece) or letters in spelt:
        return False
    # Joined parts of a spelt word would hide its letters.
    if piece.isalpha() and len(piece) == 2:
        return False
    if len(piece) == 2 and piece[1].isalpha():
        return piece[0] == " " and (piece[1].islower() or piece[1] in "AI")
    return True


def rendered_texts(gptoss, data):
    """The conversations as the program renders them, cut at the markers."""
    lines = [json.dumps({"conversation": json.loads(line), "auto_drop_analysis": False})
             for line in open(data, encoding="ascii")]
    done = subprocess.run([gptoss, "render"], input="\n".join(lines), capture_output=True, text=True, check=True)
    marker = re.compile("|".join(map(re.escape, MARKERS)))
    for line in done.stdout.splitlines():
        yield from marker.split(json.loads(line)["text"])


def count_pieces(texts):
    counts = collections.Counter()
    for text in texts:
        counts.update(ASCII_SPLIT.findall(text))
    return counts


def choose_tokens(counts, size):
    """The bytes, then whole pieces by falling frequency."""
    spelt = set(SPELLING_WORDS)
    wanted = [p for p, n in counts.items() if n >= LEAST_COUNT and may_be_token(p, spelt)]
    wanted.sort(key=lambda p: (-counts[p], p))
    return wanted[:size - 256 - len(MARKERS)]


def tokenizer_json(pieces, size):
    letters = alphabet()
    vocab = {letters[byte]: byte for byte in range(256)}
    for i, piece in enumerate(pieces):
        vocab["".join(letters[b] for b in piece.encode())] = 256 + i
    first = size - len(MARKERS)
    return {
        "version": "1.0", "normalizer": None,
        "added_tokens": [{"id": first + i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for i, text in enumerate(MARKERS)],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": True, "vocab": vocab, "merges": []},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gptoss", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--size", type=int, default=1536)
    parser.add_argument("--out", required=True)
    flags = parser.parse_args()
    counts = count_pieces(rendered_texts(flags.gptoss, flags.data))
    pieces = choose_tokens(counts, flags.size)
    total = sum(counts.values())
    known = sum(counts[p] for p in pieces)
    print(f"{len(counts)} pieces, {len(pieces)} become tokens, the rarest seen {counts[pieces[-1]]} times; "
          f"{known / total:.3f} of all pieces are one token")
    out = pathlib.Path(flags.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(tokenizer_json(pieces, flags.size), indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
