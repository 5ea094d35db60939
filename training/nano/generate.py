#!/usr/bin/env python3
"""Writes the training data and the evaluation suite of the embedded model; both depend on the seed alone.

  generate.py train --count 300000 --seed 1 --out train.jsonl
  generate.py suite --per-family 50 --seed 2 --out evals/nano.jsonl
  generate.py held-out --count 300 --seed 3 --out eval.jsonl     (in the trainer's form, to measure the loss on)

A question belongs to one side of the split by a hash of what it asks, so no held-out question is ever trained on.
"""

import argparse
import json
import random

from nano_data import conversation


def write(path, lines):
    with open(path, "w", encoding="ascii") as out:
        for line in lines:
            out.write(json.dumps(line, separators=(",", ":")) + "\n")


def train_lines(count, seed):
    for i in range(count):
        # Each line has its own stream: a longer file begins with the shorter one.
        yield conversation.training_conversation(random.Random(f"train {seed} {i}"))[1]


def held_out_lines(count, seed):
    for i in range(count):
        rng = random.Random(f"held out {seed} {i}")
        effort = rng.choice(["low", "medium", "high"])
        item = conversation.make_item(rng, conversation.choose_maker(rng), held_out=True)
        system = conversation.system_message(rng, effort, item.identity, item.python, short=False)
        yield {"messages": [system] + conversation.prompt_messages(item) + conversation.answer_messages(item, effort)}


def suite_lines(per_family, seed):
    for maker, _ in conversation.FAMILIES:
        rng, seen = random.Random(f"suite {seed} {maker.__name__}"), set()
        # A small family may have fewer held-out questions than asked for.
        for _ in range(per_family * 200):
            item = conversation.make_item(rng, maker, held_out=True)
            if len(seen) == per_family:
                break
            if item.question not in seen:
                seen.add(item.question)
                yield conversation.suite_line(item, len(seen))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "held-out", "suite"):
        command = commands.add_parser(name)
        command.add_argument("--seed", type=int, default=1)
        command.add_argument("--out", required=True)
        if name == "suite":
            command.add_argument("--per-family", type=int, default=50)
        else:
            command.add_argument("--count", type=int, required=True)
    flags = parser.parse_args()
    if flags.command == "suite":
        write(flags.out, suite_lines(flags.per_family, flags.seed))
    else:
        write(flags.out, (train_lines if flags.command == "train" else held_out_lines)(flags.count, flags.seed))


if __name__ == "__main__":
    main()
