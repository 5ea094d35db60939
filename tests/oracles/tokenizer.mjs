// Compares `gptoss tokenize` with two independent tokenizers on generated text.
//
//   npm ci && node tokenizer.mjs PATH_TO_GPTOSS [--count N] [--seed S] [--code-points]
//
// Every text must give the same ids as tiktoken (o200k_base) and gpt-tokenizer (o200k_harmony), and decode to itself.
// --code-points checks the class of every code point instead, against tiktoken alone (some minutes): it is Unicode 16,
// while gpt-tokenizer follows the Unicode version of Node.
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const require = createRequire(import.meta.url);
const { get_encoding: getEncoding } = require('tiktoken');
const harmony = require('gpt-tokenizer/encoding/o200k_harmony');

function parseArguments(argv) {
  const options = { binary: undefined, count: 4000, seed: 1, codePoints: false };
  for (let i = 0; i < argv.length; ++i) {
    if (argv[i] === '--count') options.count = Number(argv[++i]);
    else if (argv[i] === '--seed') options.seed = Number(argv[++i]);
    else if (argv[i] === '--code-points') options.codePoints = true;
    else options.binary = argv[i];
  }
  if (!options.binary || !(options.count > 0) || !Number.isInteger(options.seed)) {
    console.error('usage: node tokenizer.mjs PATH_TO_GPTOSS [--count N] [--seed S] [--code-points]');
    process.exit(2);
  }
  return options;
}

/** Mulberry32: small, seeded, the same everywhere. */
class Random {
  constructor(seed) { this.state = seed >>> 0; }
  unit() {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }
  below(n) { return Math.floor(this.unit() * n); }
  pick(list) { return list[this.below(list.length)]; }
}

/** Code points by general category, of those that utf8proc 2.8 and every oracle know: assigned by Unicode 15. */
function codePointsByCategory() {
  const names = ['Lu', 'Ll', 'Lt', 'Lm', 'Lo', 'Mn', 'Mc', 'Me', 'Nd', 'Nl', 'No', 'Pc', 'Pd', 'Ps', 'Pe', 'Pi', 'Pf',
    'Po', 'Sm', 'Sc', 'Sk', 'So', 'Zs', 'Zl', 'Zp', 'Cc', 'Cf', 'Co'];
  const patterns = names.map((name) => new RegExp(`^\\p{${name}}$`, 'u'));
  const lists = names.map(() => []);
  for (let c = 0; c < 0x110000; ++c) {
    if (c >= 0xd800 && c <= 0xdfff) continue;
    if (c >= 0x40000 && c < 0xe0000) c = 0xe0000;
    const text = String.fromCodePoint(c);
    const i = patterns.findIndex((p) => p.test(text));
    if (i >= 0) lists[i].push(text);
  }
  return lists.filter((list) => list.length > 0);
}

const WORDS = ('the of and Tokenizer HTTPServer camelCase iPhone don\'t WON\'T they\'LL I\'ve o\'clock rock\'n\'roll naïve '
  + 'Straße ΣΊΣΥΦΟΣ Ελληνικά Привет МОСКВА москвА 你好 世界 こんにちは カタカナ 한국어 العربية עברית हिन्दी ภาษาไทย '
  + 'ǅungla ʰmodifier résumé İstanbul ſpecial it\'ſ K2 x² ½ Ⅻ ٣٤٥ १२३ <|start|> <|end|> <|endoftext|> user@example.org '
  + 'https://example.org/a/b?c=d#e snake_case_name CONSTANT_NAME 0xDEADBEEF 1e-9 3.14159 1,234,567.89').split(' ');
const SPACES = [' ', '  ', '   ', '\t', '\n', '\r\n', '\n\n', ' \n', '\n ', ' \t ', '\u00a0', '\u2003', '\u3000', '\u2028',
  '\u0085', '\r', '\v', '\f', '        ', '\n\n\n    '];
const SYMBOLS = ['.', ',', '!?', '...', '//', '/*', '*/', '{', '}', '();', '=>', '->', '"', '\'', '\'\'', '--', '—', '…', '$',
  '€', '#', '/', '\n/', '🙂', '👩‍👩‍👧‍👦', '🇳🇴', '👍🏽', '☃️', '∑', '\u200b', '\ufeff', '\u0301', '\u20e3'];
const CONTRACTIONS = ['\'s', '\'T', '\'re', '\'VE', '\'m', '\'Ll', '\'d', '\'x', '\'ſ', '\'', '’s', '\'lL', '\'r', '\'v'];
const CODE = ['for (int i = 0; i < n; ++i) {\n', '    return x->y[i] * 2.5e-3f;\n', '}\n\n', 'def f(self, *args):\n\tpass\n',
  '#include <vector>\r\n', 'SELECT * FROM t WHERE a=\'b\';', '{"key":[1,2,{"k":null}]}', '<div class="a">&nbsp;</div>',
  '/// comment\n///\n', 'x=~/^\\s+$/\n'];

function makeText(random, categories) {
  const makers = [
    () => random.pick(WORDS), () => ' ' + random.pick(WORDS), () => random.pick(SPACES), () => random.pick(SYMBOLS),
    () => random.pick(CONTRACTIONS), () => random.pick(CODE), () => String(random.below(1e9)).slice(0, 1 + random.below(9)),
    () => random.pick(random.pick(categories)),
    () => random.pick(random.pick(categories)).repeat(1 + random.below(4)),
    () => [...random.pick(WORDS)].map((c) => (random.below(2) ? c.toUpperCase() : c.toLowerCase())).join(''),
    () => String.fromCharCode(random.below(128)),
    () => random.pick('aAzZ0 .\n').repeat(1 + random.below(random.below(20) === 0 ? 300 : 12)),
  ];
  // A text leans on a few makers, so that runs of one kind occur as well as mixtures.
  const chosen = Array.from({ length: 1 + random.below(4) }, () => random.pick(makers));
  let text = '';
  for (let n = 1 + random.below(40); n > 0; --n) text += random.pick(chosen)();
  return text;
}

/** Texts in which the class of a code point changes the ids around it, not only its own bytes. */
function probes(c) {
  return [`${c}'s`, `!!${c}'s`, ` ${c}'s`, `A${c}Bc'd`, `x${c}HELLO's`, `1${c}234`, `  ${c}x`, `!${c}/\n/`, `\n${c}\n`, `a ${c} b`];
}

function* generate(options) {
  if (!options.codePoints) {
    const random = new Random(options.seed);
    const categories = codePointsByCategory();
    for (let i = 0; i < options.count; ++i) yield makeText(random, categories);
    return;
  }
  for (let c = 0; c < 0x110000; ++c) {
    if (c === 0xd800) c = 0xe000;
    if (c === 0x40000) c = 0xe0000;
    if (c === 0xe0200) return;
    yield* probes(String.fromCodePoint(c));
  }
}

/** A child that answers one line with one line. */
function startTokenizer(binary) {
  const child = spawn(binary, ['tokenize'], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.on('error', (error) => { console.error(`${binary}: ${error.message}`); process.exit(1); });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async ask(requests) {
      // The write completes on its own while answers are read, so neither side waits on a full pipe.
      child.stdin.write(requests.map((r) => JSON.stringify(r) + '\n').join(''));
      const answers = [];
      for (let i = 0; i < requests.length; ++i) {
        const line = await lines.next();
        if (line.done) throw new Error('gptoss tokenize ended early');
        answers.push(JSON.parse(line.value));
      }
      return answers;
    },
    stop() { child.stdin.end(); },
  };
}

// gpt-tokenizer splits with JavaScript's \s, which has U+FEFF and lacks U+0085; it loses a U+FEFF at a token's start; and
// its contractions are spelled out in ASCII, without the long s.
// Newer Nodes also know the letters, marks and numbers of Unicode 17.
const UNICODE_17 = [
  '\\u{295}\\u{88f}\\u{c5c}\\u{cdc}\\u{1acf}-\\u{1add}\\u{1ae0}-\\u{1aeb}\\u{a7ce}-\\u{a7cf}\\u{a7d2}\\u{a7d4}\\u{a7f1}',
  '\\u{10940}-\\u{10959}\\u{10ec5}-\\u{10ec7}\\u{10efa}-\\u{10efb}\\u{11b60}-\\u{11b67}\\u{11db0}-\\u{11ddb}',
  '\\u{11de0}-\\u{11de9}\\u{16ea0}-\\u{16eb8}\\u{16ebb}-\\u{16ed3}\\u{16ff2}-\\u{16ff6}\\u{187f8}-\\u{187ff}',
  '\\u{18d09}-\\u{18d1e}\\u{18d80}-\\u{18df2}\\u{1e6c0}-\\u{1e6de}\\u{1e6e0}-\\u{1e6f5}\\u{1e6fe}-\\u{1e6ff}',
  '\\u{2b73a}-\\u{2b73f}\\u{2cea2}-\\u{2cead}\\u{323b0}-\\u{33479}',
].join('');
const JAVASCRIPT_DIFFERS = new RegExp(`[\\ufeff\\u0085${UNICODE_17}]|'\\u017f`, 'u');

const same = (a, b) => a !== undefined && a.length === b.length && a.every((id, i) => id === b[i]);

async function main() {
  const options = parseArguments(process.argv.slice(2));
  const tiktoken = getEncoding('o200k_base');
  const gptoss = startTokenizer(options.binary);
  let checked = 0, wrong = 0, ids = 0;
  const report = (what, text, expected, got) => {
    if (++wrong <= 40) console.error(`${what}: ${JSON.stringify(text)}\n  expected ${JSON.stringify(expected)}\n  got      ${JSON.stringify(got)}`);
  };
  const check = async (batch) => {
    const encoded = await gptoss.ask(batch.map((text) => ({ text })));
    const decoded = await gptoss.ask(encoded.map((answer) => ({ ids: answer.ids ?? [] })));
    batch.forEach((text, i) => {
      const got = encoded[i].ids;
      const expected = Array.from(tiktoken.encode_ordinary(text));
      if (!same(got, expected)) report('tiktoken', text, expected, got);
      if (!options.codePoints && !JAVASCRIPT_DIFFERS.test(text)) {
        const other = harmony.encode(text, { disallowedSpecial: new Set() });
        if (!same(got, other)) report('gpt-tokenizer', text, other, got);
      }
      if (decoded[i].text !== text) report('decode', text, text, decoded[i].text);
      checked += 1;
      ids += expected.length;
    });
  };
  let batch = [];
  for (const text of generate(options)) {
    batch.push(text);
    if (batch.length === 500) {
      await check(batch);
      batch = [];
    }
  }
  if (batch.length > 0) await check(batch);
  gptoss.stop();
  console.log(`tokenizer oracles: ${checked} texts, ${ids} ids, ${wrong} differences`);
  process.exit(wrong === 0 && checked > 0 ? 0 : 1);
}

main();
