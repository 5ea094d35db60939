#!/usr/bin/env python3
"""Prints the measured part of the model card, in Markdown, from what gptoss eval --json wrote.

Usage: model_card.py MODEL_DIRECTORY EVAL_JSON…
"""

import json
import pathlib
import sys


def table(runs):
    """One row a family; a column for each effort and temperature."""
    columns = [(run["temperature"], result) for run in runs for result in run["results"]]
    names = sorted({name for _, result in columns for name in result["families"]})
    head = ["task"] + [f"{result['effort']}, {'greedy' if temperature == 0 else f'temperature {temperature:g}'}"
                       for temperature, result in columns]
    rows = []
    for name in names + ["all"]:
        scores = [result["families"].get(name) if name != "all" else result["all"] for _, result in columns]
        mark = " *" if any(score.get("hard") for score in scores) and name != "all" else ""
        rows.append([name.replace("_", " ") + mark] + [f"{100 * score['accuracy']:.1f}" for score in scores])
    valid = [100 * result["all"].get("valid_calls", 0) for _, result in columns]
    rows.append(["valid calls"] + [f"{share:.1f}" for share in valid])
    tokens = [result["all"]["tokens_per_item"] for _, result in columns]
    rows.append(["tokens per answer"] + [f"{count:.1f}" for count in tokens])
    lines = [head, ["---"] + ["---:"] * len(columns)] + rows
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    directory = pathlib.Path(sys.argv[1])
    runs = [json.loads(pathlib.Path(path).read_text()) for path in sys.argv[2:]]
    items = runs[0]["results"][0]["all"]["items"]
    size = sum(file.stat().st_size for file in directory.iterdir())
    print(f"Share of {items} held-out questions answered rightly, in percent; {size / 1e6:.1f} MB. "
          "Tasks marked * are made for telling efforts apart.\n")
    print(table(runs))


if __name__ == "__main__":
    main()
