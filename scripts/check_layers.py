#!/usr/bin/env python3
"""Checks that the folders of src/ and apps/ use each other only as the design allows.

Fails on an #include of, or a CMake dependency on, a folder that the table below does not allow, on an include between the
CPU and the CUDA backend, on an include that names no file, and on a file of more than 800 lines. Files of more than 500
lines and functions of more than 60 are listed without failing.

Usage: check_layers.py [ROOT]        exit code 0: all allowed, 1: not, 2: wrong usage
       check_layers.py --self-test
"""

import pathlib
import re
import sys
import tempfile

# What each folder may use besides itself and base.
ALLOWED = {
    "base": set(),
    "json": set(),
    "tensor": set(),
    "parallel": set(),
    "kv_cache": set(),
    "checkpoint": {"tensor", "json"},
    "tokenizer": {"json"},
    "ops": {"tensor", "parallel"},
    "sampling": {"tensor"},
    "harmony": {"tokenizer", "json"},
    "grammar": {"tokenizer", "json"},
    "hub": {"json"},
    "backends": {"ops", "tensor", "parallel"},
    # Loading runs on the pool, and weights and caches live in its host buffers.
    "model": {"ops", "checkpoint", "tensor", "parallel"},
    "engine": {"model", "kv_cache", "sampling", "grammar", "tokenizer", "ops", "parallel"},
    "training": {"model", "ops", "checkpoint", "harmony", "tokenizer", "tensor", "parallel", "json"},
    "tools": {"harmony", "json"},
    "agent": {"tools", "harmony"},
    "server": {"engine", "agent", "harmony", "grammar", "tokenizer", "json"},
}
# The only places that choose a backend; they may use everything.
UNRESTRICTED = {"apps", "capi"}
# Single headers that layers above the folder share, wherever the folder itself is out of reach.
SHARED_HEADERS = {
    "checkpoint/model_config.h": {"engine"},
    "checkpoint/xxh64.h": {"engine"},
    "tensor/float_convert.h": {"engine"},
    "sampling/stop_sequences.h": {"server"},
}

SOURCE_SUFFIXES = {".h", ".cc", ".cu", ".cuh", ".inc"}
WARN_LINES, FAIL_LINES, WARN_FUNCTION_LINES = 500, 800, 60

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
# gptoss_library, gptoss_test and gptoss_fuzzer name their dependencies after DEPS, up to the next keyword.
CMAKE_TARGET = re.compile(r"\bgptoss_(library|test|fuzzer)\(\s*(\S+)([^)]*)\)", re.S)
CMAKE_KEYWORDS = {"SOURCES", "ALONE", "DEPS", "LINK", "LABELS", "SHARDS"}
NOT_A_FUNCTION = re.compile(r"^\s*(?:namespace|class|struct|enum|union|extern\s+\"C\"\s*\{|#|//)|=\s*\{")


def folder_of(relative):
    """The layer of a file given relative to the root: 'apps', or the first folder under src/."""
    parts = relative.parts
    if parts[0] == "apps":
        return "apps"
    return parts[1] if len(parts) > 2 else None


def backend_of(name):
    match = re.match(r"(?:src/)?backends/(cpu|cuda)/", name)
    return match.group(1) if match else None


def check_include(root, relative, target, errors, line_number):
    where = f"{relative}:{line_number}"
    if "/" not in target:
        if not (root / relative).parent.joinpath(target).exists():
            errors.append(f'{where}: "{target}" is no file beside it; includes are relative to src/')
        return
    used = target.split("/", 1)[0]
    if used not in ALLOWED and used not in UNRESTRICTED:
        if (root / "src" / target).exists() or used == "..":
            errors.append(f'{where}: "{target}" is outside the layers')
        return  # a header of a library, written with quotes as that library asks
    if not (root / "src" / target).exists():
        errors.append(f'{where}: "{target}" does not exist under src/')
    own = folder_of(relative)
    if own in UNRESTRICTED:
        return
    if own not in ALLOWED:
        errors.append(f"{relative}: the folder {own} is not in the table of {pathlib.Path(__file__).name}")
        return
    shared = own in SHARED_HEADERS.get(target, set())
    if used not in ALLOWED[own] | {own, "base"} and not shared:
        allowed = ", ".join(sorted(ALLOWED[own])) or "nothing"
        errors.append(f'{where}: {own} must not include "{target}"; besides base it may use {allowed}')
    mine, theirs = backend_of(relative.as_posix()), backend_of(target)
    if mine and theirs and mine != theirs:
        errors.append(f'{where}: the {mine} backend must not include "{target}" of the {theirs} backend')


def strip_line(line):
    """A line without string and character literals and without a // comment, so that braces can be counted."""
    line = re.sub(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)\'', '""', line)
    return line.split("//", 1)[0]


def long_functions(lines):
    """(first line, length) of each definition that begins in column 0 and closes with '}' in column 0."""
    head = start = None  # first line of a signature, and of a function whose '{' has been seen
    for number, line in enumerate(lines, 1):
        if start is not None:
            if line.startswith("}"):
                if number - start + 1 > WARN_FUNCTION_LINES:
                    yield start, number - start + 1
                start = None
            continue
        code = strip_line(line).rstrip()
        if code and not code[0].isspace():
            head = number if "(" in code and not NOT_A_FUNCTION.search(code) else None
        if head is not None and code.endswith(("{", ";", "}")):
            start = head if code.endswith("{") else None
            head = None


def check_file(root, relative, errors, warnings):
    lines = (root / relative).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if match:
            check_include(root, relative, match.group(1), errors, number)
    if len(lines) > FAIL_LINES:
        errors.append(f"{relative}: {len(lines)} lines, more than {FAIL_LINES}; split it")
    elif len(lines) > WARN_LINES:
        warnings.append(f"{relative}: {len(lines)} lines (soft limit {WARN_LINES})")
    for number, length in long_functions(lines):
        warnings.append(f"{relative}:{number}: a function of {length} lines (soft limit {WARN_FUNCTION_LINES})")


def cmake_dependencies(arguments):
    names, keyword = [], None
    for word in re.sub(r"#[^\n]*", "", arguments).split():
        if word in CMAKE_KEYWORDS:
            keyword = word
        elif keyword == "DEPS":
            names.append(word)
    return names


def check_cmake(relative, text, errors):
    own = folder_of(relative)
    if own in UNRESTRICTED or own is None:
        return
    for match in CMAKE_TARGET.finditer(text):
        kind, target, arguments = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        for name in cmake_dependencies(arguments):
            # A target of a subfolder, e.g. backends_cpu, counts as its folder.
            folder = next((f for f in [*ALLOWED, "capi"] if name == f or name.startswith(f + "_")), None)
            if folder is None:
                errors.append(f"{relative}:{line}: {target} depends on {name}, which is no folder of the table")
            elif kind == "library" and folder not in ALLOWED.get(own, set()) | {own, "base"}:
                allowed = ", ".join(sorted(ALLOWED.get(own, set()))) or "nothing"
                errors.append(f"{relative}:{line}: {target} must not depend on {name}; besides base it may use {allowed}")


def check(root):
    errors, warnings = [], []
    for top in ("src", "apps"):
        for path in sorted((root / top).rglob("*")):
            relative = path.relative_to(root)
            if path.name == "CMakeLists.txt":
                check_cmake(relative, path.read_text(encoding="utf-8"), errors)
            elif path.suffix in SOURCE_SUFFIXES and path.is_file():
                check_file(root, relative, errors, warnings)
    return errors, warnings


def self_test():
    """Each rule is broken once in a small tree; each must be found, and a correct tree must pass."""
    cases = {
        "src/json/a.cc": ('#include "tensor/dtype.h"\n', "must not include"),
        "src/json/b.cc": ('#include "json/absent.h"\n', "does not exist"),
        "src/json/c.cc": ('#include "absent.h"\n', "no file beside it"),
        "src/json/d.cc": ("//\n" * 801, "more than 800"),
        "src/odd/a.cc": ('#include "base/status.h"\n', "not in the table"),
        "src/backends/cpu/a.cc": ('#include "backends/cuda/x.h"\n', "the cpu backend must not include"),
        "src/model/a.cc": ('#include "backends/cuda/x.h"\n', "model must not include"),
        "src/tensor/CMakeLists.txt": ("gptoss_library(tensor SOURCES a.cc DEPS base json)\n", "must not depend on json"),
    }
    good = {
        "src/base/status.h": "",
        "src/tensor/dtype.h": '#include "base/status.h"\n',
        "src/backends/cuda/x.h": '#include "tensor/dtype.h"\n',
        "src/ops/CMakeLists.txt": "gptoss_library(ops SOURCES a.cc DEPS tensor parallel base LINK Threads::Threads)\n",
        "apps/gptoss/main.cc": '#include "backends/cuda/x.h"\n',
    }
    for name, (text, expected) in {"": ("", None), **cases}.items():
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for path, content in {**good, **({name: text} if name else {})}.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(content, encoding="utf-8")
            errors, _ = check(root)
            if expected is None and errors or expected is not None and not any(expected in e for e in errors):
                print(f"self-test: {name or 'the correct tree'}: {errors}", file=sys.stderr)
                return 1
    body = ["  if (x) {", "  }"] + ["  g();"] * 58 + ["}"]
    split = ["int F(int x,", "      int y) {"]
    found = [list(long_functions(text)) for text in (["int F() {", *body], [*split, *body], [*split, "}"], body)]
    if found != [[(1, 62)], [(1, 63)], [], []]:
        print("self-test: function lengths are wrong", file=sys.stderr)
        return 1
    print(f"self-test: {len(cases)} broken trees found, the correct one accepted")
    return 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if len(sys.argv) > 2 or sys.argv[1:2] and sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    root = pathlib.Path(sys.argv[1] if len(sys.argv) == 2 else pathlib.Path(__file__).resolve().parent.parent)
    if not (root / "src").is_dir():
        print(f"{root}: has no folder src", file=sys.stderr)
        return 2
    errors, warnings = check(root)
    for text in warnings:
        print(f"note: {text}")
    for text in errors:
        print(f"error: {text}")
    print(f"layers: {len(errors)} errors, {len(warnings)} notes")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
