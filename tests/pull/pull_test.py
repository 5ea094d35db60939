"""End-to-end test of `gptoss pull`: pull_test.py GPTOSS_BINARY [unittest arguments]."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import fake_hub

BINARY = None
BIG = "model-00001-of-00002.safetensors"
SMALL = "model-00002-of-00002.safetensors"
CHUNK = 256 * 1024
DEADLINE_S = 60  # a hang is a failure; nothing else depends on time

FILES = {
    "config.json": b'{"model_type": "gpt_oss"}\n',
    "generation_config.json": b"{}\n",
    "tokenizer.json": fake_hub.random_bytes(1, 100_000),
    "tokenizer_config.json": b"",
    "model.safetensors.index.json": b'{"weight_map": {}}\n',
    BIG: fake_hub.random_bytes(2, 3_000_001),
    SMALL: fake_hub.random_bytes(3, 700_000),
    "README.md": b"# not needed\n",
    "LICENSE": b"not needed\n",
    "original/config.json": b"{}\n",
    "original/model.safetensors": fake_hub.random_bytes(4, 300_000),
    "metal/model.bin": fake_hub.random_bytes(5, 1000),
}
DEFAULT_FILES = sorted(p for p in FILES if "/" not in p and p not in ("README.md", "LICENSE"))
DEFAULT_BYTES = sum(len(FILES[p]) for p in DEFAULT_FILES)


def environment(**extra):
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith("HF_")
           and k not in ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "GPTOSS_HOME")}
    env.update(extra)
    return env


class PullTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="gptoss-pull-")
        self.cache = pathlib.Path(self.folder.name) / "models"
        self.model = self.cache / "openai--gpt-oss-20b"
        self.partial = self.cache / "openai--gpt-oss-20b.partial"
        self.hub = self.start_hub()

    def tearDown(self):
        self.folder.cleanup()

    def start_hub(self, **arguments):
        hub = fake_hub.Hub(**{"files": FILES, **arguments})
        self.addCleanup(hub.close)
        return hub

    def command(self, *arguments, name="gpt-oss-20b"):
        defaults = {"--endpoint": self.hub.url, "--cache-dir": str(self.cache), "--chunk-size": str(CHUNK),
                    "--retry-delay": "0.01", "--retries": "4"}
        given = [text for flag, value in defaults.items() if flag not in arguments for text in (flag, value)]
        return [BINARY, "pull", name, *given, *arguments]

    def pull(self, *arguments, name="gpt-oss-20b", **env):
        return subprocess.run(self.command(*arguments, name=name), env=environment(**env), capture_output=True,
                              text=True, timeout=DEADLINE_S, check=False)

    def assert_pulled(self, result, paths=None, files=None):
        self.assertEqual(result.returncode, 0, result.stderr)
        paths = DEFAULT_FILES if paths is None else paths
        files = FILES if files is None else files
        found = sorted(p.relative_to(self.model).as_posix() for p in self.model.rglob("*") if p.is_file())
        self.assertEqual(found, sorted([".gptoss-pull.json", *paths]))
        for path in paths:
            self.assertEqual((self.model / path).read_bytes(), files[path], path)
        self.assertFalse(self.partial.exists())

    def assert_failed(self, result, *words, code=1):
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        self.assertEqual(result.stdout, "")
        last = result.stderr.strip().splitlines()[-1]
        self.assertTrue(last.startswith("gptoss: "), last)
        for word in words:
            self.assertIn(word, last)
        self.assertFalse(self.model.exists())

    # What works.

    def test_normal(self):
        result = self.pull("--json")
        self.assert_pulled(result)
        summary = json.loads(result.stdout)
        self.assertEqual(summary["repo"], "openai/gpt-oss-20b")
        self.assertEqual(summary["commit"], fake_hub.COMMIT)
        self.assertEqual(summary["path"], str(self.model))
        self.assertEqual([f["path"] for f in summary["files"]], DEFAULT_FILES)
        self.assertEqual(summary["bytes_total"], DEFAULT_BYTES)
        self.assertEqual(summary["bytes_received"], DEFAULT_BYTES)
        self.assertFalse(summary["already_complete"])
        # The big file came in as many ranges as it has chunks, each once; the empty one needed no request.
        self.assertEqual(len(self.hub.file_requests(BIG)), -(-len(FILES[BIG]) // CHUNK))
        self.assertEqual(self.hub.file_requests("tokenizer_config.json"), [])

    def test_prints_the_folder_and_quiet_is_silent(self):
        result = self.pull("--quiet", name="openai/gpt-oss-20b")
        self.assert_pulled(result)
        self.assertEqual(result.stdout, f"{self.model}\n")
        self.assertEqual(result.stderr, "")

    def test_second_call_downloads_nothing(self):
        self.assert_pulled(self.pull())
        self.hub.reset_counters()
        result = self.pull("--json")
        self.assert_pulled(result)
        self.assertTrue(json.loads(result.stdout)["already_complete"])
        self.assertEqual([r[0] for r in self.hub.requests], ["/api/models/openai/gpt-oss-20b/revision/main?blobs=true"])

    def test_new_commit_fetches_only_what_changed(self):
        self.assert_pulled(self.pull())
        changed = dict(FILES, **{SMALL: fake_hub.random_bytes(99, 650_000)})
        self.hub.files, self.hub.commit = changed, "f" * 40
        self.hub.reset_counters()
        result = self.pull("--json")
        self.assert_pulled(result, files=changed)
        self.assertEqual(json.loads(result.stdout)["bytes_received"], 650_000)
        self.assertEqual(sorted(p.name for p in self.cache.iterdir()), [".openai--gpt-oss-20b.lock", self.model.name])

    def test_replacing_keeps_files_of_the_user(self):
        self.assert_pulled(self.pull())
        (self.model / "notes.txt").write_text("mine")
        self.hub.files, self.hub.commit = dict(FILES, **{"config.json": b"{}"}), "f" * 40
        result = self.pull()
        self.assert_pulled(result, files=self.hub.files)
        old = self.cache / (self.model.name + ".old")
        self.assertEqual([p.name for p in old.iterdir()], ["notes.txt"])
        self.assertIn(str(old), result.stderr)

    def test_original_joins_what_is_there(self):
        self.assert_pulled(self.pull())
        original = [p for p in FILES if p.startswith("original/")]
        result = self.pull("--original")
        self.assert_pulled(result, paths=DEFAULT_FILES + original)

    def test_original_alone(self):
        result = self.pull("--original")
        self.assert_pulled(result, paths=["original/config.json", "original/model.safetensors", "tokenizer.json",
                                          "tokenizer_config.json"])

    def test_include(self):
        result = self.pull("--include", "metal/*", "--include", "README.md")
        self.assert_pulled(result, paths=["metal/model.bin", "README.md"])

    def test_endpoint_from_the_environment(self):
        command = self.command()
        at = command.index("--endpoint")
        del command[at : at + 2]
        result = subprocess.run(command, env=environment(HF_ENDPOINT=self.hub.url + "/"), capture_output=True,
                                text=True, timeout=DEADLINE_S, check=False)
        self.assert_pulled(result)

    def test_without_checksums_sizes_are_checked(self):
        self.hub.give_digests = False
        self.assert_pulled(self.pull())

    def test_without_checksums_two_versions_are_not_mixed(self):
        self.hub.give_digests = False
        changed = dict(FILES, **{BIG: fake_hub.random_bytes(55, len(FILES[BIG]))})
        served = []

        def fault(request):
            if request.name != BIG:
                return False
            served.append(1)
            new = len(served) > 3
            data = (changed if new else FILES)[BIG]
            request.serve(data[request.begin : request.end], etag='"v2"' if new else '"v1"')
            return True

        self.hub.fault = fault
        self.assert_pulled(self.pull(), files=changed)

    # What servers do.

    def test_dropped_connections(self):
        dropped = set()

        def fault(request):
            key = (request.name, request.begin)
            if key in dropped or request.begin % CHUNK != 0 or request.end - request.begin < 1000:
                return False
            dropped.add(key)
            body = request.data[request.begin : request.end]
            request.file_headers(len(body))
            request.write(body[: len(body) // 2])
            request.drop()
            return True

        self.hub.fault = fault
        result = self.pull("--json")
        self.assert_pulled(result)
        self.assertGreater(len(dropped), 12)
        # What had arrived before each drop was kept: nothing was asked for twice.
        self.assertEqual(json.loads(result.stdout)["bytes_received"], DEFAULT_BYTES)

    def test_always_dropping_ends(self):
        def fault(request):
            if request.name == BIG:
                request.drop()
                return True
            return False

        self.hub.fault = fault
        result = self.pull()
        self.assert_failed(result, BIG, "times in a row", "resumes")
        self.assertIn("trying again", result.stderr)

    def test_content_length_too_small(self):
        lied = set()

        def fault(request):
            if request.name != BIG or request.begin in lied:
                return False
            lied.add(request.begin)
            request.serve(request.data[request.begin : request.end - 100])
            return True

        self.hub.fault = fault
        self.assert_pulled(self.pull())

    def test_content_length_too_large(self):
        lied = set()

        def fault(request):
            if request.name != BIG or request.begin in lied:
                return False
            lied.add(request.begin)
            request.serve(request.data[request.begin : request.end], announce=request.end - request.begin + 100)
            request.drop()
            return True

        self.hub.fault = fault
        self.assert_pulled(self.pull())

    def test_size_always_wrong(self):
        self.hub.listing_override["config.json"] = {"size": 20}
        self.assert_failed(self.pull(), "config.json", "announces", "20")

    def test_more_bytes_than_asked(self):
        def fault(request):
            if request.name != BIG:
                return False
            body = request.data[request.begin : request.end] + b"extra"
            request.serve(body)
            return True

        self.hub.fault = fault
        # Content-Range is right and Content-Length is not: the surplus must never be written over the next range.
        self.assert_pulled(self.pull())

    def test_another_range_than_asked(self):
        def fault(request):
            if request.name != BIG:
                return False
            request.begin, request.end = 0, 1000
            request.serve(request.data[:1000])
            return True

        self.hub.fault = fault
        self.assert_failed(self.pull(), BIG, "another range")

    def test_corrupted_once(self):
        corrupted = []

        def fault(request):
            if request.name != BIG or request.begin != CHUNK or corrupted:
                return False
            corrupted.append(request.begin)
            body = bytearray(request.data[request.begin : request.end])
            body[1000] ^= 1
            request.serve(bytes(body))
            return True

        self.hub.fault = fault
        result = self.pull()
        self.assert_pulled(result)
        self.assertIn("downloading it again", result.stderr)
        self.assertEqual(corrupted, [CHUNK])

    def test_corrupted_always(self):
        def fault(request):
            if request.name != BIG:
                return False
            body = bytearray(request.data[request.begin : request.end])
            body[-1] ^= 0x80
            request.serve(bytes(body))
            return True

        self.hub.fault = fault
        self.assert_failed(self.pull(), BIG, "sha256:")
        # The wrong bytes are not resumed, the right ones are.
        self.assertFalse((self.partial / (BIG + ".part")).exists())
        self.hub.fault = None
        result = self.pull("--json")
        self.assert_pulled(result)
        self.assertLess(json.loads(result.stdout)["bytes_received"], DEFAULT_BYTES)

    def test_small_file_corrupted_always(self):
        def fault(request):
            if request.name != "config.json":
                return False
            request.serve(request.data.replace(b"gpt", b"gpu"))
            return True

        self.hub.fault = fault
        self.assert_failed(self.pull(), "config.json", "git-sha1:")

    def test_ranges_ignored(self):
        self.hub.honour_ranges = False
        self.assert_pulled(self.pull())

    def test_ranges_ignored_and_one_drop(self):
        self.hub.honour_ranges = False
        dropped = []

        def fault(request):
            if request.name != BIG or request.headers.get("Range") or dropped:
                return False
            dropped.append(1)
            request.file_headers(len(request.data))
            request.write(request.data[:2_000_000])
            request.drop()
            return True

        self.hub.fault = fault
        self.assert_pulled(self.pull())
        self.assertEqual(dropped, [1])

    def test_too_many_requests_then_good(self):
        answered = {}

        def fault(request):
            count = answered[request.name] = answered.get(request.name, 0) + 1
            if count > 2:
                return False
            request.answer(429 if count == 1 else 503, b"slow down", {"Retry-After": "0"})
            return True

        listing = []

        def listing_fault(request):
            listing.append(1)
            if len(listing) > 2:
                return False
            request.answer(503, b"", {})
            return True

        self.hub.fault, self.hub.listing_fault = fault, listing_fault
        result = self.pull()
        self.assert_pulled(result)
        self.assertIn("HTTP 429", result.stderr)
        self.assertEqual(len(listing), 3)

    def test_retry_after_is_honoured(self):
        times = []

        def fault(request):
            if request.name != "config.json":
                return False
            times.append(time.monotonic())
            if len(times) > 1:
                return False
            request.answer(429, b"", {"Retry-After": "1"})
            return True

        self.hub.fault = fault
        self.assert_pulled(self.pull())
        self.assertGreaterEqual(times[1] - times[0], 1.0)  # the contract of Retry-After, not a speed

    def test_retry_after_too_long_is_reported(self):
        def fault(request):
            if request.name != "config.json":
                return False
            request.answer(429, b"", {"Retry-After": "86400"})
            return True

        self.hub.fault = fault
        self.assert_failed(self.pull(), "config.json", "86400 s")

    def test_unauthorized(self):
        self.hub.token = "hf_secret"
        self.assert_failed(self.pull(), "openai/gpt-oss-20b", "401", "gated", "set HF_TOKEN")
        self.assert_failed(self.pull(HF_TOKEN="hf_wrong"), "401", "HF_TOKEN that may read it")
        self.assert_pulled(self.pull(HF_TOKEN="hf_secret"))

    def test_not_found(self):
        self.assert_failed(self.pull("--revision", "absent"), "openai/gpt-oss-20b", "absent", "404")
        self.assert_failed(self.pull(name="openai/absent"), "openai/absent", "404")

    def test_listed_file_not_found(self):
        self.hub.listing_extra = [{"rfilename": "tokenizer_extra.json", "size": 5, "blobId": "0" * 40}]
        self.assert_failed(self.pull(), "tokenizer_extra.json", "404")

    def test_redirect_does_not_leak_the_token(self):
        cdn = self.start_hub()
        self.hub.redirect_to, self.hub.token = cdn.url, "hf_secret"
        self.assert_pulled(self.pull(HF_TOKEN="hf_secret"))
        self.assertTrue(cdn.requests)
        self.assertEqual({authorization for _, _, authorization in cdn.requests}, {None})
        self.assertEqual({authorization for _, _, authorization in self.hub.requests}, {"Bearer hf_secret"})
        self.assertEqual(len(cdn.file_requests(BIG)), -(-len(FILES[BIG]) // CHUNK))

    def start_tls_hub(self):
        """A hub with a certificate of its own for 127.0.0.1; returns it and the certificate's file."""
        if shutil.which("openssl") is None:
            self.skipTest("needs the openssl program to make a certificate")
        key, certificate = (str(self.cache.parent / name) for name in ("key.pem", "certificate.pem"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                        "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
                       check=True, capture_output=True, timeout=DEADLINE_S)
        return self.start_hub(tls=(certificate, key)), certificate

    def test_tls(self):
        self.hub, certificate = self.start_tls_hub()
        result = self.pull()
        self.assert_failed(result, "certificate")
        self.assertNotIn("trying again", result.stderr)
        self.assertEqual(self.hub.requests, [])
        self.assert_pulled(self.pull(CURL_CA_BUNDLE=certificate))

    def test_tls_is_not_left_for_plain_http(self):
        plain = self.hub
        self.hub, certificate = self.start_tls_hub()
        self.hub.redirect_to = plain.url
        self.assert_failed(self.pull(CURL_CA_BUNDLE=certificate), BIG, "plain http", "--insecure")
        self.assertEqual(plain.requests, [])
        self.assert_pulled(self.pull("--insecure", CURL_CA_BUNDLE=certificate))

    def test_redirect_loop(self):
        self.hub.fault = lambda request: request.answer(302, b"", {"Location": request.path}) or True
        self.assert_failed(self.pull(), "redirects")

    def test_names_that_leave_the_folder(self):
        outside = self.cache.parent / "tokenizer_evil.json"
        for name in ("../tokenizer_evil.json", "tokenizer/../../tokenizer_evil.json", "/tokenizer_evil.json",
                     "tokenizer\n.json", "a\\..\\tokenizer.json", "", "tokenizer//x.json", "tokenizer.json.part"):
            with self.subTest(name=name):
                self.hub.listing_extra = [{"rfilename": name, "size": 5, "blobId": "0" * 40}]
                self.assert_failed(self.pull("--include", "*"), "refused")
                self.assertFalse(outside.exists())
                self.assertFalse(self.partial.exists())

    def test_bad_listings(self):
        for body in (b"", b"[]", b"{", b'{"siblings": 3}', b'{"siblings": [{}]}', b"[" * 100_000,
                     b'{"siblings": [{"rfilename": "config.json"}]}',
                     b'{"siblings": [{"rfilename": "config.json", "size": -1}]}',
                     b'{"siblings": [{"rfilename": "config.json", "size": 1e30}]}',
                     b'{"siblings": [{"rfilename": "config.json", "size": 1, "lfs": {"sha256": "zz"}}]}',
                     b'{"siblings": [{"rfilename": "a", "size": 1}, {"rfilename": "a", "size": 1}]}',
                     b'{"siblings": [{"rfilename": "a", "size": 1}, {"rfilename": "a/b", "size": 1}]}'):
            with self.subTest(body=body[:60]):
                self.hub.listing_fault = lambda request, body=body: request.answer(200, body) or True
                self.assert_failed(self.pull())

    def test_disk_space_is_checked_first(self):
        self.hub.listing_override[BIG] = {"size": 2**40, "lfs": {"sha256": "0" * 64, "size": 2**40}}
        self.assert_failed(self.pull(), "free", "--cache-dir")
        self.assertEqual(self.hub.file_requests(BIG), [])

    # Interruption.

    def hold_after(self, limit):
        """Serves `limit` bytes of the big file in all, then holds its connections until released."""
        release, held = threading.Event(), threading.Event()
        count = [0]

        def fault(request):
            if request.name != BIG:
                return False
            body = request.data[request.begin : request.end]
            request.file_headers(len(body))
            for start in range(0, len(body), 16384):
                with self.hub.lock:
                    count[0] += 16384
                    over = count[0] > limit
                if over:
                    held.set()
                    release.wait(DEADLINE_S)
                    request.drop()
                    return True
                request.write(body[start : start + 16384])
            return True

        self.addCleanup(release.set)
        self.hub.fault = fault
        return held, release

    def interrupt(self, how):
        held, release = self.hold_after(1_500_000)
        process = subprocess.Popen(self.command(), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True)
        self.assertTrue(held.wait(DEADLINE_S))
        state = self.partial / (BIG + ".part.json")
        self.wait_until(lambda: state.exists() and self.bytes_in(state) >= 3 * CHUNK)
        process.send_signal(how)
        _, stderr = process.communicate(timeout=DEADLINE_S)
        release.set()
        # Threads of the first server may still be writing to the dead process; the counts must be of the next pull alone.
        self.hub = self.start_hub()
        self.assertFalse(self.model.exists())
        return process.returncode, stderr, self.bytes_in(state)

    def wait_until(self, condition):
        end = time.monotonic() + DEADLINE_S
        while not condition():
            self.assertLess(time.monotonic(), end, "gave up waiting")
            time.sleep(0.01)

    @staticmethod
    def bytes_in(state):
        return sum(end - begin for begin, end in json.loads(state.read_text())["done"])

    def finished_bytes(self):
        manifest = json.loads((self.partial / ".gptoss-pull.json").read_text())
        return sum(f["size"] for f in manifest["files"])

    def unfinished_bytes(self):
        return sum(self.bytes_in(p) for p in self.partial.rglob("*.part.json"))

    def test_killed_then_resumed(self):
        code, _, _ = self.interrupt(signal.SIGKILL)
        self.assertEqual(code, -signal.SIGKILL)
        have = self.finished_bytes() + self.unfinished_bytes()
        self.assertGreaterEqual(have, 3 * CHUNK)
        self.hub.reset_counters()
        result = self.pull("--json")
        self.assert_pulled(result)
        # Exactly what the state on disk lacked was fetched, by our count and by the server's.
        self.assertEqual(json.loads(result.stdout)["bytes_received"], DEFAULT_BYTES - have)
        listing_bytes = len(json.dumps(self.hub.listing()).encode())
        self.assertEqual(self.hub.body_bytes, DEFAULT_BYTES - have + listing_bytes)

    def test_interrupted_then_resumed(self):
        code, stderr, _ = self.interrupt(signal.SIGINT)
        self.assertEqual(code, 1)
        self.assertIn("resumes where it stopped", stderr)
        have = self.finished_bytes() + self.unfinished_bytes()
        result = self.pull("--json")
        self.assert_pulled(result)
        self.assertEqual(json.loads(result.stdout)["bytes_received"], DEFAULT_BYTES - have)

    def test_part_of_another_version_is_not_resumed(self):
        self.interrupt(signal.SIGINT)
        other = dict(FILES, **{BIG: fake_hub.random_bytes(77, len(FILES[BIG]))})
        self.hub.files, self.hub.commit = other, "e" * 40
        self.assert_pulled(self.pull(), files=other)

    def test_damaged_state_starts_over(self):
        self.interrupt(signal.SIGINT)
        (self.partial / (BIG + ".part.json")).write_text('{"version":1,"size":3000001,"done":[[0,99999999')
        self.assert_pulled(self.pull())

    def test_part_damaged_on_disk_is_found(self):
        self.interrupt(signal.SIGINT)
        with open(self.partial / (BIG + ".part"), "r+b") as part:
            part.seek(0)
            part.write(bytes(CHUNK * 2))
        result = self.pull()
        self.assert_pulled(result)
        self.assertIn("downloading it again", result.stderr)

    def test_two_at_once(self):
        held, release = self.hold_after(500_000)
        first = subprocess.Popen(self.command(), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertTrue(held.wait(DEADLINE_S))
        self.assert_failed(self.pull(), "another process")
        self.hub.fault = None
        release.set()
        first.communicate(timeout=DEADLINE_S)
        self.assertEqual(first.returncode, 0)

    # Wrong usage.

    def test_wrong_usage(self):
        self.assert_failed(self.pull(name="gpt-5"), "gpt-5", "org/repo", code=2)
        self.assert_failed(self.pull(name="../x"), "org/repo", code=2)
        self.assert_failed(self.pull("--revision", "a/../b"), "revision", code=2)
        self.assert_failed(self.pull("--jobs", "0"), "--jobs", code=2)
        self.assert_failed(self.pull("--chunk-size", "1K"), "--chunk-size", code=2)
        self.assert_failed(self.pull("--endpoint", "http://example.invalid"), "--insecure", code=2)
        self.assert_failed(self.pull("--endpoint", "ftp://127.0.0.1"), "http", code=2)
        self.assert_failed(self.pull("--endpoint", "https://user:pw@127.0.0.1"), "HF_TOKEN", code=2)
        self.assert_failed(self.pull(HF_TOKEN="a\r\nX: y"), "HF_TOKEN", code=2)
        self.assertEqual(self.hub.requests, [])

    def test_folder_of_somebody_else(self):
        self.model.mkdir(parents=True)
        (self.model / "mine").write_text("x")
        result = self.pull()
        self.assertEqual(result.returncode, 1)
        self.assertIn("was not made by gptoss pull", result.stderr)
        self.assertEqual([p.name for p in self.model.iterdir()], ["mine"])


if __name__ == "__main__":
    BINARY = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=1)
