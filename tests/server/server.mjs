// Starts `gptoss serve` with the embedded model, whose weights are random, for the end-to-end tests.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const START_MS = 120_000;

/** A folder that is gone when the process ends. */
export function scratchFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'gptoss-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Resolves when the server listens. `stop(signal)` resolves when it has ended. */
export async function startServer(gptoss, flags = [], model = 'nano') {
  const child = spawn(gptoss, ['serve', '--model', model, '--port', '0', '--quiet', ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = new Promise((resolve) => child.on('exit', (code, signal) => resolve({ code, signal })));
  process.on('exit', () => child.kill('SIGKILL'));
  let out = '', err = '';
  child.stderr.on('data', (bytes) => (err += bytes));
  const url = await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`gptoss serve did not start: ${out}${err}`)), START_MS);
    ended.then(() => reject(new Error(`gptoss serve ended: ${out}${err}`)));
    child.stdout.on('data', (bytes) => {
      out += bytes;
      const found = /https?:\/\/[^\s/]+/.exec(out);
      if (!found) return;
      clearTimeout(timer);
      resolve(found[0]);
    });
  });
  const stop = (signal = 'SIGTERM') => {
    child.kill(signal);
    return ended;
  };
  return { url, pid: child.pid, stop, errors: () => err };
}

/** Runs the tests one after the other; the process's exit code says whether all passed. */
export async function runTests(tests) {
  let failed = 0;
  for (const [name, test] of Object.entries(tests)) {
    try {
      await test();
      console.log(`ok      ${name}`);
    } catch (error) {
      failed++;
      console.log(`FAILED  ${name}\n${error.stack ?? error}`);
    }
  }
  console.log(`${Object.keys(tests).length - failed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}
