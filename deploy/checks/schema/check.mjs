// node check.mjs DASHBOARD.json: fails if the file does not match Grafana's own types (@grafana/schema).
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import Ajv from 'ajv';
import { createGenerator } from 'ts-json-schema-generator';

const types = fileURLToPath(new URL('dashboard.ts', import.meta.url));
const schema = createGenerator({ path: types, type: 'File', skipTypeCheck: true, additionalProperties: false, expose: 'none' }).createSchema('File');
const valid = new Ajv({ strict: false, allErrors: true }).compile(schema);

const file = process.argv[2];
const dashboard = JSON.parse(readFileSync(file, 'utf8'));
if (!valid(dashboard)) {
  // A panel that fits no kind fails against every kind, so the first errors are enough.
  const wrong = valid.errors.filter((error) => !['anyOf', 'const'].includes(error.keyword));
  for (const { instancePath, message, params } of wrong.slice(0, 20)) console.error(`${file}${instancePath} ${message} ${JSON.stringify(params)}`);
  process.exit(1);
}
const { version } = JSON.parse(readFileSync(new URL('node_modules/@grafana/schema/package.json', import.meta.url), 'utf8'));
console.log(`${dashboard.panels.length} panels and rows fit @grafana/schema ${version}`);
