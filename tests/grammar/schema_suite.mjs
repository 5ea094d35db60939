// Compares `gptoss grammar check` with the JSON Schema Test Suite and with ajv.
//
//   node schema_suite.mjs PATH_TO_GPTOSS [--verbose]       (after npm ci in this folder)
//
// Part 1: every schema of the suite (drafts 7 and 2020-12, the optional tests too) that is supported accepts each valid
// instance and no invalid one; under a format some valid ones may be refused, which are counted. Numbers keep the
// spelling of the files. Files of what the standard leaves open are left out (OPTIONS).
// Part 2: random schemas and instances, judged by ajv as draft 2020-12.
// Prints the table of docs/structured-outputs.md; exit code 1 when anything is wrong.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { spelled, suite } from './suite.mjs';

const require = createRequire(import.meta.url);
const Ajv = require('ajv/dist/2020').default;
const binary = process.argv[2], verbose = process.argv.includes('--verbose');
if (!binary) {
  console.error('usage: node schema_suite.mjs PATH_TO_GPTOSS');
  process.exit(2);
}

function check(lines, flags) {
  const input = lines.join('\n') + '\n';
  const run = spawnSync(binary, ['grammar', 'check', '--batch', ...flags], { input, maxBuffer: 1 << 28 });
  if (run.status !== 0) {
    console.error(`gptoss failed: ${run.stderr}`);
    process.exit(1);
  }
  return run.stdout.toString().trim().split('\n').map((line) => JSON.parse(line));
}

/** Which keyword an error names. */
function reason(error) {
  const match = /schema (#\S*):/.exec(error);
  return match ? match[1].split('/').pop() : error.slice(0, 60);
}

let wrong = 0;

// What the standard leaves open and is settled otherwise here: formats are assertions, contents are not looked into.
const OPTIONS = ['format.json', 'optional/format-assertion.json', 'optional/content.json'];

function checkDraft(draft, flags, table) {
  const groups = suite(draft).filter((group) => !OPTIONS.includes(group.file));
  const answers = check(groups.map((g) => `{"schema":${spelled(g.schema)},"documents":[${g.tests.map((t) => spelled(t.data))}]}`), flags);
  groups.forEach((group, i) => {
    if (!table.has(group.file)) table.set(group.file, { reasons: new Set() });
    const row = (table.get(group.file)[draft] ??= { supported: 0, refused: 0, instances: 0, narrower: 0, wrong: 0 });
    if (!answers[i].supported) {
      // A schema without any valid instance is refused too; then no test may be valid.
      if (/no text at all/.test(answers[i].error) && group.tests.some((t) => t.valid)) row.wrong += 1;
      row.refused += 1;
      table.get(group.file).reasons.add(reason(answers[i].error));
      return;
    }
    row.supported += 1;
    group.tests.forEach((test, k) => {
      row.instances += 1;
      if (answers[i].accepted[k] === test.valid) return;
      // What is written under a format is a subset of what its standard allows.
      const narrower = group.file.startsWith('optional/format/') && test.valid;
      row[narrower ? 'narrower' : 'wrong'] += 1;
      if (narrower && !verbose) return;
      console.log(`${narrower ? 'narrower' : 'WRONG'} ${draft} ${group.file}: ${group.description}: ${test.description}: ${spelled(test.data)}`);
    });
  });
}

function checkSuite() {
  const table = new Map(), columns = ['supported', 'refused', 'instances', 'narrower', 'wrong'];
  checkDraft('draft7', ['--draft7'], table);
  checkDraft('draft2020-12', [], table);
  console.log(`| file | ${columns.join(' | ')} | ${columns.join(' | ')} | refused for |\n|---|${'---|'.repeat(11)}`);
  const total = { 'draft7': {}, 'draft2020-12': {} };
  const cells = (row) => columns.map((column) => row?.[column] ?? '').join(' | ');
  for (const [file, row] of table) {
    for (const draft of Object.keys(total)) {
      for (const column of columns) total[draft][column] = (total[draft][column] ?? 0) + (row[draft]?.[column] ?? 0);
    }
    console.log(`| ${file} | ${cells(row.draft7)} | ${cells(row['draft2020-12'])} | ${[...row.reasons].join(', ')} |`);
  }
  console.log(`| all | ${cells(total.draft7)} | ${cells(total['draft2020-12'])} | |`);
  for (const draft of Object.values(total)) {
    wrong += draft.wrong;
    if (draft.supported < 100) wrong += 1;  // a suite of which little is supported would prove little
  }
}

/** Mulberry32: small, seeded, the same everywhere. */
let state = 1;
function unit() {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = state;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}
const below = (n) => Math.floor(unit() * n);
const pick = (list) => list[below(list.length)];
const maybe = (object, key, value, chance = 0.4) => { if (unit() < chance) object[key] = value; };

function randomSchema(depth) {
  const schema = {};
  const type = pick(depth > 0 ? ['integer', 'number', 'string', 'boolean', 'null', 'array', 'object', 'object', 'any', 'anyOf', 'allOf']
    : ['integer', 'number', 'string', 'boolean', 'null', 'enum', 'const']);
  if (type === 'enum') return { enum: [1, 'a', null, 'ab', [1], { a: 1 }].filter(() => unit() < 0.6).concat([true]) };
  if (type === 'const') return { const: pick([1, 'a', null, [1, 'b'], { a: 1 }]) };
  if (type === 'anyOf' || type === 'allOf') return { [type]: [randomSchema(depth - 1), randomSchema(depth - 1)] };
  if (type !== 'any') schema.type = unit() < 0.2 ? [type, 'null'].filter((t, i, l) => l.indexOf(t) === i) : type;
  const low = below(8) - 4;
  maybe(schema, pick(['minimum', 'exclusiveMinimum']), low / pick([1, 2]), 0.3);
  maybe(schema, pick(['maximum', 'exclusiveMaximum']), low + below(6) / pick([1, 4]), 0.3);
  if (type === 'integer') maybe(schema, 'multipleOf', 1 + below(4), 0.3);
  maybe(schema, 'minLength', below(3), 0.2);
  maybe(schema, 'maxLength', below(4) + 1, 0.2);
  maybe(schema, 'pattern', pick(['^a', 'b$', '^[ab]*$', 'a.b', '^(a|é)+$', '"']), 0.2);
  if (depth === 0) return schema;
  maybe(schema, 'items', randomSchema(depth - 1), type === 'array' ? 0.6 : 0.1);
  maybe(schema, 'prefixItems', [randomSchema(depth - 1), randomSchema(0)], type === 'array' ? 0.3 : 0);
  maybe(schema, 'minItems', below(3), 0.2);
  maybe(schema, 'maxItems', below(4), 0.2);
  if (type === 'object' || unit() < 0.1) {
    schema.properties = Object.fromEntries(['a', 'ab', 'c'].filter(() => unit() < 0.6).map((k) => [k, randomSchema(depth - 1)]));
    maybe(schema, 'required', ['a', 'c'].filter(() => unit() < 0.5));
    maybe(schema, 'additionalProperties', pick([false, randomSchema(0)]));
    maybe(schema, 'patternProperties', { '^a': randomSchema(0) }, 0.2);
  }
  return schema;
}

function randomValue(depth) {
  switch (below(depth > 0 ? 9 : 6)) {
    case 0: return below(12) - 6;
    case 1: return (below(48) - 24) / 4;
    case 2: return unit() < 0.5;
    case 3: return null;
    case 4: case 5: return Array.from({ length: below(5) }, () => pick(['a', 'b', 'é', '"', 'x'])).join('');
    case 6: return Array.from({ length: below(4) }, () => randomValue(depth - 1));
    default: return Object.fromEntries(['c', 'b', 'a', 'ab'].filter(() => unit() < 0.4).map((k) => [k, randomValue(depth - 1)]));
  }
}

function againstAjv(count) {
  const lines = [], validators = [];
  const ajv = new Ajv({ strict: false });
  while (lines.length < count) {
    const schema = randomSchema(2);
    validators.push(ajv.compile(schema));
    lines.push({ schema, documents: Array.from({ length: 40 }, () => randomValue(2)) });
  }
  const answers = check(lines.map((line) => JSON.stringify(line)), []);
  let supported = 0, instances = 0, valid = 0, bad = 0;
  lines.forEach((line, i) => {
    if (!answers[i].supported) {
      if (/no text at all/.test(answers[i].error) && line.documents.some((d) => validators[i](d))) {
        bad += 1;
        console.log(`WRONG: no text for ${JSON.stringify(line.schema)}`);
      }
      return;
    }
    supported += 1;
    line.documents.forEach((document, k) => {
      instances += 1;
      const expected = validators[i](document);
      valid += expected ? 1 : 0;
      if (expected === answers[i].accepted[k]) return;
      bad += 1;
      if (bad < 20) console.log(`WRONG: ${JSON.stringify(line.schema)} on ${JSON.stringify(document)}: ajv says ${expected}`);
    });
  });
  console.log(`random schemas: ${count}, supported ${supported}, instances ${instances}, valid by ajv ${valid}, wrong ${bad}`);
  if (valid < instances / 50) bad += 1;
  wrong += bad;
}

checkSuite();
againstAjv(2000);
process.exit(wrong === 0 ? 0 : 1);
