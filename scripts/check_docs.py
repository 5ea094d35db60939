#!/usr/bin/env python3
"""Checks that the documents name only files that exist.

In README.md, ARCHITECTURE.md, CONTRIBUTING.md and docs/*.md, everything in `backticks` that looks like a path of this
repository, and every relative Markdown link, must exist. A path looks like one of this repository when it begins with a
folder or file of the root, or with a folder of src/ (`model/gpt_oss.cc`). `a/{b,c}.h` stands for both files and `*` for
anything that matches; build/ and what .gitignore names is not checked. Fenced blocks are read too, one word at a time.

Usage: check_docs.py [ROOT]        exit code 0: all exist, 1: not, 2: wrong usage
       check_docs.py --self-test
"""

import pathlib
import re
import sys
import tempfile

SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"^(?:\./)?[A-Za-z0-9_.{][A-Za-z0-9_.{},*/+-]*$")
IGNORED_ROOTS = {"build", "node_modules"}
SUFFIX = re.compile(r"\.(?:md|h|cc|cu|cuh|py|sh|mjs|json|cmake|txt|yml|yaml|npy)$")


def expand(pattern):
    """'a/{b,c}.h' -> ['a/b.h', 'a/c.h']; nested braces are expanded from the left."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if not match:
        return [pattern]
    return [path for choice in match.group(1).split(",")
            for path in expand(pattern[: match.start()] + choice + pattern[match.end() :])]


def exists(base, path):
    path = path.rstrip("/")
    if "*" in path:
        return any(True for _ in base.glob(path))
    return (base / path).exists()


def looks_like_path(root, word):
    if not PATH.match(word) or word.startswith(("..", "-")):
        return False
    word = word.removeprefix("./")
    first = word.split("/", 1)[0]
    if first in IGNORED_ROOTS or first == "":
        return False
    if "/" in word:
        return (root / first).is_dir() or (root / "src" / first).is_dir()
    return False if not SUFFIX.search(word) else word[0].isupper() or (root / word).exists()


def spans(lines):
    """(line number, text) of every code span, and of every word inside a fenced block."""
    fenced = False
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced:
            for word in line.split("#", 1)[0].split():
                yield number, word
        else:
            for match in SPAN.finditer(line):
                for word in match.group(1).split():
                    yield number, word


def check_document(root, document):
    lines = document.read_text(encoding="utf-8").splitlines()
    errors, count = [], 0
    name = document.relative_to(root)
    for number, text in spans(lines):
        word = re.sub(r":\d+$", "", text.rstrip(".,;:")).removeprefix("./")
        if not looks_like_path(root, word):
            continue
        count += 1
        for path in expand(word):
            if not exists(root, path) and not exists(root / "src", path):
                errors.append(f"{name}:{number}: `{text}` names {path}, which does not exist")
    for number, line in enumerate(lines, 1):
        for match in LINK.finditer(SPAN.sub("", line)):
            target = match.group(1).split("#", 1)[0]
            if not target or re.match(r"[a-z]+:", target):
                continue
            count += 1
            if not exists(document.parent, target):
                errors.append(f"{name}:{number}: the link to {target} leads nowhere")
    return errors, count


def check(root):
    documents = [root / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
    documents = [d for d in documents if d.exists()] + sorted((root / "docs").glob("**/*.md"))
    errors, count = [], 0
    for document in documents:
        found, number = check_document(root, document)
        errors += found
        count += number
    return errors, count, len(documents)


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for path in ("src/model/gpt_oss.cc", "src/model/gpt_oss.h", "docs/numerics.md", "run.sh"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text("", encoding="utf-8")
        good = ("`src/model/gpt_oss.cc` `model/gpt_oss.{h,cc}` `./run.sh` `model/*.h` `build/x` `text/plain` `a/b/c`\n"
                "`--model` `gpt-oss-20b` [n](docs/numerics.md) [w](https://example.org/x)\n```\n./run.sh ARGS\n```\n")
        bad = ("`src/model/absent.cc` `model/gpt_oss.{h,py}` `model/*.py` `ABSENT.md` [n](docs/absent.md)\n"
               "```\nsrc/absent/x.cc\n```\n")
        for text, expected in ((good, 0), (bad, 6)):
            (root / "README.md").write_text(text, encoding="utf-8")
            errors, _, _ = check(root)
            if len(errors) != expected:
                print(f"self-test: expected {expected} errors, found {errors}", file=sys.stderr)
                return 1
    print("self-test: 6 wrong names found, the correct document accepted")
    return 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if len(sys.argv) > 2 or sys.argv[1:2] and sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    root = pathlib.Path(sys.argv[1] if len(sys.argv) == 2 else pathlib.Path(__file__).resolve().parent.parent).resolve()
    errors, count, documents = check(root)
    for text in errors:
        print(f"error: {text}")
    print(f"docs: {count} paths in {documents} documents, {len(errors)} errors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
