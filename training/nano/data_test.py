#!/usr/bin/env python3
"""Checks of the data generator: answers are right, the split is clean, everything is deterministic.

Usage: data_test.py [GPTOSS_BINARY SUITE TOKENIZER]; with them, also the tokenizer and the rendering are checked.
"""

import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import unittest

import generate
import train_tokenizer
from nano_data import conversation, item, language, numbers, tools

BINARY = SUITE = TOKENIZER = None
SUM = re.compile(r"(?<![\d*+/-])(\d+(?:[-+*/]\d+)+)=(\d+)")


def items(count, seed=7):
    for i in range(count):
        rng = random.Random(f"{seed} {i}")
        yield conversation.make_item(rng, conversation.choose_maker(rng), held_out=i % 2 == 1)


def evaluated(sum_text):
    assert re.fullmatch(r"[\d+*/-]+", sum_text)
    # Leading zeros of a column's digits are fine here, and not in Python.
    return eval(re.sub(r"\b0+(?=\d)", "", sum_text))


class Items(unittest.TestCase):
    def test_every_sum_in_a_thought_is_right(self):
        sums = 0
        for one in items(4000):
            for thought in one.thoughts:
                for left, right in SUM.findall(thought):
                    self.assertEqual(evaluated(left), int(right), f"{one.question}: {thought}")
                    sums += 1
        self.assertGreater(sums, 2000)

    def test_answers_by_other_means(self):
        checked = {}
        for one in items(6000):
            by_family = getattr(self, f"right_{one.family}", None)
            if by_family is not None:
                self.assertEqual(by_family(one), one.answer, one.question)
                checked[one.family] = checked.get(one.family, 0) + 1
            if one.thoughts[2] and one.family.endswith("arithmetic"):
                self.assertTrue(one.thoughts[2].endswith(one.answer) or "Check" in one.thoughts[2])
        self.assertGreater(min(checked.values()), 50, checked)
        self.assertEqual(len(checked), 6)

    def right_arithmetic(self, one):
        return str(int(evaluated(one.key)))

    right_long_arithmetic = right_arithmetic

    def right_long_sorting(self, one):
        down, listed = one.key.split(" ", 1)
        return ", ".join(map(str, sorted(map(int, listed.split(", ")), reverse=down == "True")))

    def right_long_strings(self, one):
        what, *rest = one.key.split(" ")
        return rest[0][::-1] if what == "reverse" else str(rest[1].count(rest[0]))

    def right_python(self, one):
        code = one.calls[0].code
        if "factorial" in code:
            return one.calls[0].result.strip()
        return str(eval(code[len("print("):-1], {"__builtins__": {"sum": sum, "min": min, "max": max}}))

    def right_json(self, one):
        schema = one.developer["response_formats"][0]["schema"]
        value = json.loads(one.answer)
        self.assertEqual(list(value), schema["required"])
        kinds = {"string": str, "integer": int, "boolean": bool}
        for key, part in schema["properties"].items():
            self.assertIs(type(value[key]), kinds[part["type"]])
        return one.answer

    def test_calls_fit_their_declarations(self):
        calls = 0
        for one in items(3000):
            if one.family != "functions":
                continue
            declared = {f"functions.{f['name']}": f for f in one.developer["tools"]["functions"]["tools"]}
            for call in one.calls:
                required = declared[call.recipient].get("parameters", {"required": []})["required"]
                self.assertEqual(list(call.arguments), required)
                json.loads(call.result)
                calls += 1
        self.assertGreater(calls, 100)

    def test_a_thought_finds_the_function_that_is_called_among_all_that_are_declared(self):
        found = {True: 0, False: 0}
        for one in items(3000):
            if one.family != "functions" or not one.thoughts[0]:
                continue
            names = [f["name"] for f in one.developer["tools"]["functions"]["tools"]]
            end = one.calls[0].recipient.removeprefix("functions.") + " fits" if one.calls else "None fits"
            self.assertTrue(one.thoughts[0].endswith(end), one.thoughts)
            for thought in one.thoughts[1:]:
                self.assertIn(f"Functions: {', '.join(names)}. {end}", thought)
            found[bool(one.calls)] += 1
        self.assertGreater(min(found.values()), 20)

    def test_every_capital_begins_a_question_that_is_trained(self):
        rng = random.Random(1)
        asked = [language.places(rng) for _ in range(2000)]
        self.assertFalse(any(map(item.is_held_out, asked)))
        for country, capital, *_ in language.COUNTRIES:
            self.assertTrue(any(one.question.startswith(capital) and one.answer == country for one in asked), capital)

    def test_text_is_ascii_and_no_thought_names_a_marker(self):
        for one in items(3000):
            text = json.dumps([one.question, one.answer, one.thoughts, one.developer])
            self.assertTrue(text.isascii())
            self.assertNotIn("<|", text)


class Split(unittest.TestCase):
    def test_training_never_asks_a_held_out_question(self):
        identity = conversation.IDENTITY
        held_out = {(line["family"], line["messages"][-1]["content"], line.get("identity", identity),
                     json.dumps(line["messages"][:-1])) for line in generate.suite_lines(30, 2)}
        seen = set()
        for i in range(20000):
            family, line = conversation.training_conversation(random.Random(f"train 1 {i}"))
            users = [m["content"] for m in line["messages"] if m["role"] == "user"]
            others = [m for m in line["messages"] if m["role"] == "developer"]
            system = line["messages"][0]["content"][0].get("model_identity", identity)
            seen.add((family, users[-1], system, json.dumps(others)))
        self.assertEqual(held_out & seen, set())

    def test_each_side_has_its_share(self):
        rng = random.Random(1)
        share = sum(item.is_held_out(conversation.choose_maker(rng)(rng)) for _ in range(5000)) / 5000
        self.assertGreater(share, 0.07)
        self.assertLess(share, 0.13)

    def test_a_seed_gives_the_same_lines_and_a_longer_file_begins_with_a_shorter(self):
        first, second = list(generate.train_lines(50, 1)), list(generate.train_lines(80, 1))
        self.assertEqual(first, second[:50])
        self.assertNotEqual(first, list(generate.train_lines(50, 2)))


class Efforts(unittest.TestCase):
    def test_thinking_grows_with_effort(self):
        lengths = [0, 0, 0]
        for one in items(3000):
            for i, thought in enumerate(one.thoughts):
                lengths[i] += len(thought)
        self.assertLess(2 * lengths[0], lengths[1])
        self.assertLess(lengths[1], lengths[2])

    def test_both_sides_of_a_sum_are_written_column_by_column(self):
        self.assertEqual([step[0] for step in numbers.columns(478, 56, "+")], ["8+6", "7+5+1", "4+0+1"])
        self.assertEqual([step[0] for step in numbers.columns(43, 38, "-")], ["13-8", "4-3-1"])
        self.assertEqual([step[1:] for step in numbers.columns(47, 6, "*")], [(42, 2, 4), (28, 8, 2)])


class Tokenizer(unittest.TestCase):
    def setUp(self):
        if BINARY is None:
            self.skipTest("no binary given")

    def tokenize(self, lines):
        done = subprocess.run([BINARY, "tokenize", "--tokenizer", TOKENIZER], input="\n".join(map(json.dumps, lines)),
                              capture_output=True, text=True, check=True, timeout=120)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_text_comes_back_and_pieces_are_as_python_splits_them(self):
        texts = [one.question for one in items(200)] + ["naïve café 東京 🙂", "x" * 50, " \n\t "]
        ids = self.tokenize([{"text": text} for text in texts])
        back = self.tokenize([{"ids": line["ids"]} for line in ids])
        self.assertEqual([line["text"] for line in back], texts)
        vocab = json.loads(pathlib.Path(TOKENIZER).read_text(encoding="utf-8"))["model"]["vocab"]
        letters, whole = train_tokenizer.alphabet(), 0
        for text, line in zip(texts[:200], ids):
            spellings = ["".join(letters[b] for b in p.encode()) for p in train_tokenizer.ASCII_SPLIT.findall(text)]
            if all(spelling in vocab for spelling in spellings):
                self.assertEqual(line["ids"], [vocab[spelling] for spelling in spellings], text)
                whole += 1
        self.assertGreater(whole, 20)

    def test_digits_and_spelt_words_are_single_characters(self):
        ids = self.tokenize([{"text": "12345"}, {"text": '"kettle"'}])
        self.assertEqual(len(ids[0]["ids"]), 5)
        self.assertEqual(len(ids[1]["ids"]), 8)

    def test_markers_end_the_vocabulary(self):
        size = json.loads((pathlib.Path(__file__).parent / "config.json").read_text())["vocab_size"]
        ids = self.tokenize([{"text": marker, "special": True} for marker in train_tokenizer.MARKERS])
        self.assertEqual([line["ids"] for line in ids], [[size - len(ids) + i] for i in range(len(ids))])

    def test_the_suite_in_the_repository_is_what_the_generator_makes(self):
        lines = pathlib.Path(SUITE).read_text().splitlines()
        per_family = max(sum(json.loads(l)["family"] == family for l in lines) for family in ("facts", "units"))
        made = [json.dumps(line, separators=(",", ":")) for line in generate.suite_lines(per_family, 2)]
        self.assertEqual(lines, made)

    def test_the_trainer_takes_the_data(self):
        with tempfile.TemporaryDirectory() as folder:
            data = pathlib.Path(folder) / "data.jsonl"
            generate.write(data, generate.train_lines(300, 1))
            done = subprocess.run(
                [BINARY, "train", "--data", data, "--tokenizer", TOKENIZER, "--dry-run", "--quiet", "--from-scratch",
                 pathlib.Path(__file__).parent / "config.json"], capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("300 conversations", done.stderr)

    def test_eval_counts_every_family(self):
        done = subprocess.run([BINARY, "eval", "--suite", SUITE, "--limit", "1", "--effort", "low", "--max-tokens", "8",
                               "--failures", "--json", "--quiet"], capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        result, = json.loads(done.stdout)["results"]
        self.assertEqual(len(result["families"]), 16)
        self.assertEqual(sum(family["items"] for family in result["families"].values()), 16)
        self.assertEqual(result["all"]["right"] + len(result["failures"]), 16)
        for arguments, word in [(["--suite", "/nonexistent.jsonl"], "/nonexistent.jsonl"), (["--suite", __file__], ":1")]:
            done = subprocess.run([BINARY, "eval", *arguments], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 1)
            self.assertIn(word, done.stderr)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        BINARY, SUITE, TOKENIZER = sys.argv[1:4]
        del sys.argv[1:4]
    unittest.main()
