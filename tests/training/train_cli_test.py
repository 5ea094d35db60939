#!/usr/bin/env python3
"""gptoss train as a user meets it: preview, bad data, a run that is stopped and resumed, export.

Usage: train_cli_test.py GPTOSS_BINARY
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

from tiny_model import conversation, write_inputs

GPTOSS = None


class Train(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)
        write_inputs(self.path, [("one", "1"), ("two", "2"), ("three", "3")])

    def tearDown(self):
        self.folder.cleanup()

    def command(self, *arguments):
        return [GPTOSS, "train", "--data", self.path / "data.jsonl", "--from-scratch", self.path / "config.json",
                "--tokenizer", self.path / "tokenizer.json", "--quiet", *arguments]

    def run_train(self, *arguments):
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=300)

    def metrics(self, run):
        lines = [json.loads(line) for line in (self.path / run / "metrics.jsonl").read_text().splitlines()]
        return [(line["step"], line["loss"]) for line in lines if "loss" in line]

    def test_preview_marks_what_is_trained_on(self):
        done = self.run_train("--preview", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("<|start|>user<|message|>one<|end|><|start|>assistant"
                      "⟦<|channel|>final<|message|>1<|return|>⟧", done.stdout)
        self.assertNotIn("two", done.stdout)
        self.assertIn("3 conversations", done.stderr)

    def test_bad_lines_stop_the_run_and_are_named(self):
        with open(self.path / "data.jsonl", "a") as data:
            data.write('{"messages": [{"role": "robot", "content": "x"}]}\n{"messages": [\n')
            data.write(conversation("word " * 80, "long") + "\n")
        done = self.run_train("--out", self.path / "run")
        self.assertEqual(done.returncode, 1)
        for line, reason in [(4, "role"), (5, ""), (6, "more than the 64")]:
            self.assertTrue(any(f"data.jsonl:{line}: " in text and reason in text
                                for text in done.stderr.splitlines()), done.stderr)
        self.assertFalse((self.path / "run").exists())

    def test_wrong_usage(self):
        for arguments, word in [((), "--out"), (("--out", "x", "--lr", "-1"), "--lr"),
                                (("--out", "x", "--model", "nano"), "--from-scratch")]:
            done = self.run_train(*arguments)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(word, done.stderr)
        (self.path / "bad.json").write_text('{"learning_rate": 1}')
        done = self.run_train("--config", self.path / "bad.json")
        self.assertEqual(done.returncode, 1)
        self.assertIn("learning_rate", done.stderr)
        done = self.run_train("--out", self.path / "run", "--train", "no.such")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no.such", done.stderr)

    def test_resumed_run_equals_a_straight_one_and_exports(self):
        (self.path / "settings.json").write_text(json.dumps(
            {"steps": 6, "lr": 0.01, "save-every": 3, "batch-tokens": 40, "schedule": "linear"}))
        settings = ("--config", self.path / "settings.json")
        done = self.run_train(*settings, "--out", self.path / "a", "--export", self.path / "model")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("MXFP4", done.stderr)
        straight = self.metrics("a")
        self.assertEqual([step for step, _ in straight], [1, 2, 3, 4, 5, 6])
        self.assertLess(straight[-1][1], straight[0][1])
        self.assertEqual(sorted(p.name for p in (self.path / "a").iterdir()),
                         ["curves.html", "metrics.jsonl", "step-00000003", "step-00000006"])

        # As if killed after step 4: the state of step 3 is the newest, and metrics have a line too many.
        (self.path / "b").mkdir()
        (self.path / "a" / "step-00000003").rename(self.path / "b" / "step-00000003")
        lines = (self.path / "a" / "metrics.jsonl").read_text().splitlines()[:4]
        (self.path / "b" / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 5, "lo')
        refused = self.run_train(*settings, "--out", self.path / "b")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("--resume", refused.stderr)
        done = self.run_train(*settings, "--out", self.path / "b", "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.metrics("b"), straight)
        last = "step-00000006/state.bin"
        self.assertEqual((self.path / "a" / last).read_bytes(), (self.path / "b" / last).read_bytes())

        self.assertTrue((self.path / "model" / "tokenizer.json").exists())
        tokens = self.path / "tokens.json"
        tokens.write_text("[1, 2, 3]")
        served = subprocess.run([GPTOSS, "generate", "--model", self.path / "model", "--tokens-file", tokens,
                                 "--max-tokens", "2", "--temperature", "0", "--json"],
                                capture_output=True, text=True, timeout=300)
        self.assertEqual(served.returncode, 0, served.stderr)
        self.assertEqual(len(json.loads(served.stdout)["ids"]), 2)

    def test_a_run_killed_at_any_moment_goes_on_with_the_same_bits(self):
        settings = ("--steps", "60", "--lr", "0.01", "--save-every", "5", "--batch-tokens", "40")
        self.assertEqual(self.run_train(*settings, "--out", self.path / "a").returncode, 0)
        for kills in range(2):  # once near the beginning, once later; where exactly is up to the machine
            resume = ["--resume"] if kills > 0 else []
            process = subprocess.Popen(self.command(*settings, "--out", self.path / "b", *resume),
                                       stderr=subprocess.DEVNULL)
            limit = time.monotonic() + 120
            while not (self.path / "b" / f"step-{5 * (kills + 1):08}").exists() and process.poll() is None:
                self.assertLess(time.monotonic(), limit)
                time.sleep(0.001)
            process.kill()
            process.wait()
        done = self.run_train(*settings, "--out", self.path / "b", "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        last = "step-00000060/state.bin"
        self.assertEqual((self.path / "a" / last).read_bytes(), (self.path / "b" / last).read_bytes())
        self.assertEqual(self.metrics("a"), self.metrics("b"))

    def test_a_share_of_the_data_can_be_held_out(self):
        write_inputs(self.path, [(f"q{i}", str(i)) for i in range(30)])
        settings = ("--steps", "4", "--batch-tokens", "60", "--eval-every", "2", "--balance", "0.01", "--schedule", "wsd",
                    "--decay-steps", "2", "--eval-split", "0.2")
        done = self.run_train(*settings, "--out", self.path / "run")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, r"\d of them are held out")
        lines = [json.loads(line) for line in (self.path / "run" / "metrics.jsonl").read_text().splitlines()]
        self.assertEqual([line["step"] for line in lines if "eval_loss" in line], [2, 4])
        self.assertTrue(all(0.9 <= line["balance_loss"] <= 2 for line in lines if "loss" in line), lines)
        rates = [line["learning_rate"] for line in lines if "loss" in line]
        self.assertTrue(rates[0] == rates[1] == rates[2] > rates[3], rates)
        done = self.run_train(*settings, "--out", self.path / "other", "--eval-data", self.path / "data.jsonl")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--eval-split", done.stderr)

    def test_when_rounding_begins_is_nothing_without_rounding(self):
        done = self.run_train("--round-from", "5", "--out", self.path / "run")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--round-experts", done.stderr)
        done = self.run_train("--round-from", "5", "--round-experts", "--dry-run")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_dry_run_says_how_much_memory_is_needed(self):
        done = self.run_train("--dry-run")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("weights", done.stderr)
        done = subprocess.run([GPTOSS, "train", "--data", self.path / "data.jsonl", "--from-scratch", "120b",
                               "--tokenizer", self.path / "tokenizer.json", "--dry-run"], capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 1)
        self.assertIn("this machine has", done.stderr)


if __name__ == "__main__":
    GPTOSS = sys.argv.pop(1)
    unittest.main()
