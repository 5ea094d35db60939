#!/usr/bin/env python3
"""End-to-end tests of `gptoss run`: run_test.py GPTOSS. What must hold for any answer, with random weights; what answers
are for, with nano, the model that is built in."""

import errno
import json
import os
import pty
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import termios
import time
import unittest

MODEL = ("--model", "random")
GPTOSS = ""
DATE = ["--date", "2025-06-28"]
LIMIT_S = 120  # for one step; a machine under load may be slow


def environment(home, **changes):
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "LC_ALL", "LANG", "LC_CTYPE")}
    env.update(HOME=home, XDG_STATE_HOME=home, TERM="xterm", **changes)
    return env


def run(*args, stdin=b""):
    model = () if "--model" in args else MODEL
    done = subprocess.run([GPTOSS, "run", *model, *DATE, *args], input=stdin, capture_output=True, timeout=LIMIT_S)
    return done.returncode, done.stdout, done.stderr.decode()


class OneShot(unittest.TestCase):
    def test_answers_on_stdout_and_says_that_the_weights_are_random(self):
        code, out, err = run("--seed", "1", "--max-tokens", "40", "Hello")
        self.assertEqual(code, 0)
        self.assertGreater(len(out.decode("utf-8").strip()), 20)
        self.assertTrue(out.endswith(b"\n"))
        self.assertEqual(len([line for line in err.splitlines() if "random weights" in line]), 1)

    def test_quiet_prints_no_warning(self):
        _, _, err = run("-q", "--seed", "1", "--max-tokens", "4", "Hello")
        self.assertNotIn("random", err)

    def test_same_seed_same_answer(self):
        first = run("--seed", "5", "--max-tokens", "30", "Hello")[1]
        self.assertEqual(first, run("--seed", "5", "--max-tokens", "30", "Hello")[1])
        self.assertNotEqual(first, run("--seed", "6", "--max-tokens", "30", "Hello")[1])

    def test_answers_keep_to_a_grammar_and_reasoning_does_not(self):
        schema = '{"type":"object","properties":{"n":{"type":"integer","minimum":0,"maximum":99}},"required":["n"],"additionalProperties":false}'
        outputs = set()
        for seed in "123":
            flags = ["-q", "--seed", seed, "--max-tokens", "120", "Hello"]
            code, out, err = run("--json-schema", schema, *flags)
            self.assertEqual(code, 0, err)
            document = json.loads(out)
            self.assertEqual(list(document), ["n"])
            self.assertIn(document["n"], range(100))
            outputs.add(out)
            self.assertEqual(out, run("--json-schema", schema, "--speculate", "off", *flags)[1])
            shown = run("--json-schema", schema, "--reasoning", "show", *flags)
            self.assertTrue(shown[1].endswith(out))
        self.assertGreater(len(outputs), 1)
        self.assertRegex(run("--regex", "(yes|no)", *flags)[1], b"^(yes|no)\n$")
        code, _, err = run("-q", "--regex", "(a", "Hello")
        self.assertEqual(code, 1)
        self.assertIn("--regex: regular expression, byte 2", err)

    def test_tools_are_called_as_they_were_declared(self):
        tools = [
            {"type": "function", "function": {"name": "get_n", "strict": True, "parameters": {
                "type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
                "required": ["n"], "additionalProperties": False}}},
            {"type": "custom", "custom": {"name": "say", "format": {"type": "grammar", "grammar": {
                "syntax": "regex", "definition": "(yes|no)!"}}}},
        ]
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "tools.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(tools, file)
            flags = ["-q", "--seed", "1", "--max-tokens", "80", "--tool", path]
            for choice, name in (("get_n", "get_n"), ("say", "say"), ("get_n,say", None), ("required", None)):
                code, out, err = run(*flags, "--tool-choice", choice, "Hello")
                self.assertEqual(code, 0, err)
                label, text = out.decode().rstrip("\n").split("\n")[-2:]
                called = re.fullmatch(r"\[call to functions\.(\w+)\]", label).group(1)
                self.assertIn(called, [name] if name else ["get_n", "say"])
                if called == "get_n":
                    self.assertIn(json.loads(text)["n"], range(100))
                else:
                    self.assertRegex(text, "^(yes|no)!$")
                self.assertIn("the model calls functions." + called, err)
            self.assertNotIn(b"[call", run(*flags, "--tool-choice", "none", "Hello")[1])
            for wrong in ("other", "get_n,other"):
                code, _, err = run(*flags, "--tool-choice", wrong, "Hello")
                self.assertEqual(code, 1)
                self.assertIn("no --tool declares 'other'", err)
        self.assertIn("no --tool", run("-q", "--tool-choice", "required", "Hello")[2])

    def test_reasoning_can_be_closed_or_bounded(self):
        shown = ["-q", "--reasoning", "show", "--max-tokens", "60"]
        for seed in "12345":
            out = run(*shown, "--seed", seed, "--effort", "none", "Hello")[1]
            self.assertNotIn(b"[reasoning]", out)
            out = run(*shown, "--seed", seed, "--reasoning-budget", "3", "Hello")[1].decode()
            reasoning = [line for line in out.splitlines() if line.startswith("[reasoning] ")]
            self.assertLess(sum(len(line) for line in reasoning), 150)
            self.assertGreater(len(out.splitlines()), len(reasoning))

    def test_settings_reach_the_prompt(self):
        plain = run("--seed", "5", "--max-tokens", "30", "Hello")[1]
        for flags in (["--effort", "high"], ["--system", "You are Ada."], ["--developer", "Be brief."]):
            self.assertNotEqual(plain, run("--seed", "5", "--max-tokens", "30", *flags, "Hello")[1], flags)

    def test_piped_text_is_the_prompt_or_follows_it(self):
        flags = ["--seed", "2", "--max-tokens", "20"]
        self.assertEqual(run(*flags, "one\n\ntwo")[1], run(*flags, stdin=b"one\n\ntwo\n")[1])
        self.assertEqual(run(*flags, "one\n\ntwo")[1], run(*flags, "one", stdin=b"two\n")[1])
        self.assertEqual(run(*flags, "one two")[1], run(*flags, "one", "two")[1])

    def test_a_silent_socket_is_passed_over_and_a_silent_pipe_is_not(self):
        own = ["--seed", "2", "--max-tokens", "5", "one"]
        flags = [GPTOSS, "run", *MODEL, *DATE, *own]
        ours, theirs = socket.socketpair()
        with ours, theirs:
            done = subprocess.run(flags, stdin=theirs, capture_output=True, timeout=LIMIT_S)
        self.assertEqual(done.returncode, 0)
        self.assertIn("socket", done.stderr.decode())
        self.assertEqual(done.stdout, run(*own)[1])
        process = subprocess.Popen(flags, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertIn(b"waiting", process.stderr.readline())
        out, _ = process.communicate(b"two", timeout=LIMIT_S)
        self.assertEqual(out, run(*own, stdin=b"two")[1])

    def test_random_answers_are_capped(self):
        _, _, err = run("--seed", "3", "--stats", "Hello")
        tokens = int(re.search(r"answer: (\d+) tokens", err).group(1))
        self.assertLessEqual(tokens, 256)
        self.assertGreater(tokens, 1)
        self.assertRegex(err, r"answer: .*tokens/s")
        if tokens == 256:
            self.assertIn("--max-tokens 256", err)

    def test_stop_strings_end_the_answer_before_them(self):
        flags = ["--seed", "4", "--max-tokens", "60"]
        text = run(*flags, "Hello")[1].decode().rstrip("\n")
        stop = text[len(text) // 2:][:3]
        code, out, _ = run(*flags, "--stop", stop, "Hello")
        self.assertEqual(code, 0)
        self.assertEqual(out.decode().rstrip("\n"), text[:text.index(stop)].rstrip("\n"))

    def test_wrong_usage(self):
        for args, word in ((["--temperature", "-1", "x"], "temperature"), (["--top-p", "0", "x"], "top_p"),
                           (["--effort", "max", "x"], "--effort"), (["--stop", "", "x"], "stop"),
                           (["--max-tokens", "0", "x"], "--max-tokens"), ([], "prompt")):
            code, out, err = run(*args)
            self.assertEqual(code, 2, args)
            self.assertEqual(out, b"", args)
            self.assertIn(word, err)

    def test_failures_name_what_is_at_fault(self):
        code, _, err = run("--model", "/no/such/model", "x")
        self.assertEqual(code, 1)
        self.assertIn("/no/such/model", err)
        code, _, err = run("--context", "20", "x")
        self.assertEqual(code, 1)
        self.assertIn("--context", err)

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs a device that is always full")
    def test_an_answer_that_cannot_be_written_is_a_failure(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([GPTOSS, "run", *MODEL, "-q", "--max-tokens", "5", "x"], stdin=subprocess.DEVNULL, stdout=full,
                                  stderr=subprocess.PIPE, timeout=LIMIT_S)
        self.assertEqual(done.returncode, 1)
        self.assertIn("stdout", done.stderr.decode())

    def test_interrupt_keeps_what_was_said(self):
        # Without reasoning, which is not shown and which random weights never end.
        process = subprocess.Popen([GPTOSS, "run", *MODEL, *DATE, "--seed", "1", "--max-tokens", "100000",
                                    "--context", "131072", "--effort", "none", "Hello"], bufsize=0,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        begun = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
        self.assertEqual(process.returncode, 1)
        self.assertGreater(len((begun + out).decode().strip()), 0)
        self.assertIn("[stopped]", err.decode())


class Terminal:
    """The program in a pseudo-terminal of its own."""

    def __init__(self, home, *args, **env):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(home)
            os.execve(GPTOSS, [GPTOSS, "run", *MODEL, *DATE, *args], environment(home, **env))
        self.seen = b""  # not consumed yet
        self.all = b""
        self.code = None

    def _more(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self.fd], [], [], left)[0]:
            raise AssertionError("waited in vain; the terminal shows: %r" % self.all[-2000:])
        try:
            data = os.read(self.fd, 65536)
        except OSError as e:
            if e.errno != errno.EIO:  # how Linux reports the end of the other side
                raise
            data = b""
        self.seen += data
        self.all += data
        return bool(data)

    def expect(self, pattern):
        """Waits for the pattern, consumes up to its end, and returns what stood before it."""
        regex = re.compile(pattern.encode(), re.S)
        deadline = time.monotonic() + LIMIT_S
        while not (match := regex.search(self.seen)):
            if not self._more(deadline):
                raise AssertionError("ended before %r; the terminal shows: %r" % (pattern, self.all[-2000:]))
        before = self.seen[:match.start()]
        self.seen = self.seen[match.end():]
        return before

    def prompt(self):
        """Waits until the program reads a line: a key sent earlier could meet the terminal between two modes."""
        before = self.expect(r">>> ")
        deadline = time.monotonic() + LIMIT_S
        while termios.tcgetattr(self.fd)[3] & termios.ICANON:
            if time.monotonic() > deadline:
                raise AssertionError("the line editor does not start")
            time.sleep(0.01)
        return before

    def send(self, text):
        os.write(self.fd, text.encode())

    def line(self, text):
        self.send(text + "\r")

    def wait(self):
        """The exit code, once the program has ended by itself."""
        deadline = time.monotonic() + LIMIT_S
        while self._more(deadline):
            pass
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def close(self):
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


class Chat(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = folder.name

    def start(self, *args, **env):
        terminal = Terminal(self.home, "--seed", "1", *args, **env)
        self.addCleanup(terminal.close)
        terminal.prompt()
        return terminal

    def saved(self, terminal, name="chat.json"):
        terminal.line("/save " + name)
        terminal.expect("saved " + name)
        terminal.prompt()
        with open(os.path.join(self.home, name), encoding="utf-8") as file:
            return json.load(file)["messages"]

    def questions(self, messages):
        return ["".join(c["text"] for c in m["content"]) for m in messages if m["role"] == "user"]

    def test_commands(self):
        t = self.start("--max-tokens", "20")
        t.line("/help")
        for name in ("/effort", "/reasoning", "/new", "/save", "/load", "/stats", "/quit"):
            t.expect(name)
        t.prompt()
        t.line("/stats")
        t.expect("no answer yet")
        t.prompt()
        t.line("h\u00e9llo \u4e16")
        t.prompt()
        t.line("/stats on")
        t.expect(r"answer: \d+ tokens")
        t.prompt()
        t.line("/effort max")
        t.expect(r"usage: /effort")
        t.prompt()
        t.line("/effort high")
        t.expect("effort: high")
        t.prompt()
        t.line("/reasoning show")
        t.expect("reasoning: shown")
        t.prompt()
        t.line("/nonsense")
        t.expect("no command /nonsense")
        t.prompt()
        messages = self.saved(t)
        self.assertEqual([m["role"] for m in messages[:3]], ["system", "user", "assistant"])
        self.assertEqual(self.questions(messages), ["h\u00e9llo \u4e16"])
        self.assertEqual(messages[0]["content"][0]["reasoning_effort"].lower(), "high")
        self.assertTrue(messages[2]["content"][0]["text"])

        t.line("/new")
        t.expect("new conversation")
        t.prompt()
        self.assertEqual(self.questions(self.saved(t, "empty.json")), [])
        t.line("/load chat.json")
        t.expect("loaded chat.json: 1 question, effort high")
        t.prompt()
        t.line("again")
        t.expect(r"answer: \d+ tokens")
        t.prompt()
        self.assertEqual(self.questions(self.saved(t)), ["h\u00e9llo \u4e16", "again"])
        t.line("/load absent.json")
        t.expect("absent.json")
        t.prompt()
        t.line("/quit")
        self.assertEqual(t.wait(), 0)

    def test_later_turns_reuse_the_cache(self):
        t = self.start("--max-tokens", "20", "--stats")
        t.line("one")
        t.expect(r"prompt: (\d+) tokens, (\d+) of them new")
        t.prompt()
        t.line("two")
        t.expect(r"prompt: ")
        stats = t.prompt().decode()
        total, new = map(int, re.match(r"(\d+) tokens, (\d+) of them new", stats).groups())
        self.assertLess(new, total)

    def test_a_reused_cache_answers_like_a_fresh_one(self):
        flags = ["--exact", "--cpu", "reference", "--temperature", "0", "--max-tokens", "12"]
        answers = []
        for session in ("grown", "loaded"):
            t = self.start(*flags)
            if session == "grown":
                t.line("a first question")
                t.prompt()
                self.saved(t, "first.json")
            else:
                t.line("/load first.json")
                t.expect("1 question")
                t.prompt()
            t.line("and a second one")
            t.prompt()
            messages = self.saved(t, session + ".json")
            self.assertEqual(self.questions(messages), ["a first question", "and a second one"])
            answers.append(messages[-1])
        self.assertEqual(answers[0]["role"], "assistant")
        self.assertEqual(answers[0], answers[1])

    def test_messages_of_several_lines(self):
        t = self.start("--max-tokens", "5")
        t.line("first\\")
        t.expect(r"\.\.\. ")
        t.line("second")
        t.prompt()
        t.line('"""')
        t.expect(r"\.\.\. ")
        t.line("/quit is text here")
        t.expect(r"\.\.\. ")
        t.line('  indented"""')
        t.prompt()
        t.line("//slash")
        t.prompt()
        self.assertEqual(self.questions(self.saved(t)),
                         ["first\nsecond", "/quit is text here\n  indented", "/slash"])

    def test_what_is_pasted_is_one_message(self):
        t = self.start("--max-tokens", "5")
        t.send("Look:\x1b[200~/quit\r\tone\x04\x1b[A\rtwo\x1b[201~ end")
        t.expect("end")
        t.line("")
        t.prompt()
        pasted = "Look:/quit\n\tone\x04\x1b[A\ntwo end"
        self.assertEqual(self.questions(self.saved(t)), [pasted])
        t.line("/new")
        t.prompt()
        t.send("\x1b[A\x1b[A\x1b[A")  # past /new and /save
        t.expect("end")
        t.line("")
        t.prompt()
        self.assertEqual(self.questions(self.saved(t)), [pasted])

    def test_interrupt_stops_the_answer_and_not_the_program(self):
        t = self.start("--max-tokens", "100000", "--context", "131072", "--effort", "none")
        for question in ("one", "two"):
            t.line(question)
            t.expect(question + r"\r\n")
            t.expect(r"\w[^\r]{40}")  # the answer has begun
            t.send("\x03")
            t.expect(r"\[stopped\]")
            t.prompt()
        messages = self.saved(t)
        self.assertEqual(self.questions(messages), ["one", "two"])
        self.assertGreaterEqual(len([m for m in messages if m["role"] == "assistant"]), 1)
        t.send("typed but not sent")
        t.expect("not sent")
        t.send("\x03")
        t.prompt()
        t.send("\x03")
        t.expect("Ctrl-C once more")
        t.prompt()
        t.line("/effort")  # something else in between: the next one warns again
        t.expect("effort: none")
        t.prompt()
        self.assertEqual(self.questions(self.saved(t)), ["one", "two"])
        t.send("\x03")
        t.expect("Ctrl-C once more")
        t.prompt()
        t.send("\x03")
        self.assertEqual(t.wait(), 0)

    def test_end_of_input_leaves(self):
        t = self.start()
        t.send("\x04")
        self.assertEqual(t.wait(), 0)

    def test_history_is_kept_and_private(self):
        t = self.start("--max-tokens", "5")
        t.line("remember the m\u00e4rz")
        t.prompt()
        t.line("/quit")
        self.assertEqual(t.wait(), 0)
        path = os.path.join(self.home, "gptoss", "history")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        t = self.start("--max-tokens", "5")
        t.send("\x1b[A\x1b[A")
        t.expect("remember the m\u00e4rz")
        t.line("")
        t.prompt()
        self.assertEqual(self.questions(self.saved(t)), ["remember the m\u00e4rz"])

    def test_no_color_is_respected(self):
        t = self.start("--max-tokens", "30", "--reasoning", "hide")
        t.line("hello")
        t.prompt()
        self.assertRegex(t.all.decode(errors="replace"), "reading|thinking")
        t = self.start("--max-tokens", "30", NO_COLOR="1")
        t.line("hello")
        t.prompt()
        self.assertNotRegex(t.all.decode(errors="replace"), "reading…|thinking…")


class Nano(unittest.TestCase):
    """What `run` takes without --model."""

    def ask(self, *args):
        done = subprocess.run([GPTOSS, "run", *DATE, "--temperature", "0", *args], capture_output=True, timeout=LIMIT_S,
                              stdin=subprocess.DEVNULL, check=True)
        return done.stdout.decode()

    def test_answers(self):
        self.assertEqual(self.ask("What is 12 + 30?"), "42\n")

    def test_reasons_at_length_where_the_effort_is_high(self):
        said = {effort: self.ask("--reasoning", "show", "--effort", effort, "What is 47 + 38?") for effort in ("low", "high")}
        self.assertIn("85", said["high"])
        self.assertGreater(len(said["high"]), 2 * len(said["low"]))

    def test_fills_a_schema_from_what_it_is_told(self):
        schema = {"type": "object", "properties": {"name": {"type": "string"}, "job": {"type": "string"}},
                  "required": ["name", "job"], "additionalProperties": False}
        answer = self.ask("--json-schema", json.dumps(schema), "Victor works as a teacher.")
        self.assertEqual(json.loads(answer), {"name": "Victor", "job": "teacher"})


if __name__ == "__main__":
    GPTOSS = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
