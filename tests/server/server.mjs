// Starts `gptoss serve` for the end-to-end tests: with the embedded model, or with one of random weights.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const START_MS = 120_000;

/** A folder that is gone when the process ends. */
export function scratchFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'gptoss-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A model of random weights and a small vocabulary in `folder`: the worst there is, and fast. With these weights it reasons, calls and
 *  answers about as often as not. `ends` are the tokens that end a message: without them a turn runs to its limit. */
export function microModel(gptoss, folder) {
  const tokenizer = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'models', 'nano', 'tokenizer.json');
  const model = join(folder, 'micro.gguf');
  const { status, stderr } = spawnSync(gptoss, ['synth', '--like', 'micro', '--vocab', '1536', '--seed', '4', '--format', 'gguf', '--out', model], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`gptoss synth: ${stderr}`);
  const ends = JSON.parse(readFileSync(tokenizer, 'utf8')).added_tokens.filter(({ content }) => ['<|return|>', '<|call|>', '<|end|>'].includes(content)).map(({ id }) => id);
  return { model, flags: ['--tokenizer', tokenizer], ends };
}

/** Resolves when the server listens. `stop(signal)` resolves when it has ended. */
export async function startServer(gptoss, flags = [], model = 'nano') {
  const child = spawn(gptoss, ['serve', '--model', model, '--port', '0', ...(flags.includes('--log-file') ? [] : ['--quiet']), ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = new Promise((resolve) => child.on('exit', (code, signal) => resolve({ code, signal })));
  process.setMaxListeners(0); // one for every server
  process.on('exit', () => child.kill('SIGKILL'));
  let out = '', err = '';
  child.stderr.on('data', (bytes) => (err += bytes));
  const url = await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`gptoss serve did not start: ${out}${err}`)), START_MS);
    ended.then(() => reject(new Error(`gptoss serve ended: ${out}${err}`)));
    child.stdout.on('data', (bytes) => {
      out += bytes;
      const found = /https?:\/\/[^\s/]+|unix:\S+/.exec(out);
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
