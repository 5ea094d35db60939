// The official JSON Schema Test Suite, as Debian's package libtest-json-schema-acceptance-perl installs it.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const FOLDER = process.env.JSON_SCHEMA_TEST_SUITE ?? '/usr/share/perl5/auto/share/dist/Test-JSON-Schema-Acceptance/tests';

// JavaScript knows no difference between 1 and 1.0. A number is kept as a string that begins with this until it is
// written again.
const NUMBER = '\uE000number ';
const numbersAsText = (json) =>
  json.replace(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g, (m) => (m[0] === '"' ? m : `"${NUMBER}${m}"`));

/** The text of a value read by suite(): numbers as the file spells them. */
export const spelled = (value) => JSON.stringify(value).replace(new RegExp(`"${NUMBER}([^"]*)"`, 'g'), '$1');

/** All groups of a draft ("draft7", "draft2020-12"): { file, description, schema, tests: [{ description, data, valid }] }. */
export function suite(draft) {
  if (!existsSync(FOLDER)) {
    console.error(`${FOLDER} does not exist; install libtest-json-schema-acceptance-perl or name the folder in JSON_SCHEMA_TEST_SUITE`);
    process.exit(2);
  }
  const groups = [];
  for (const folder of ['', 'optional', 'optional/format']) {
    for (const name of readdirSync(join(FOLDER, draft, folder)).filter((n) => n.endsWith('.json')).sort()) {
      const file = join(folder, name);
      for (const group of JSON.parse(numbersAsText(readFileSync(join(FOLDER, draft, file), 'utf8')))) groups.push({ file, ...group });
    }
  }
  return groups;
}
