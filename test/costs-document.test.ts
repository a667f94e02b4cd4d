import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { ITEMS } from '../bench/reference/measure.ts';
import { settingName, settingsOf } from '../bench/reference/settings.ts';
import { IMAGES } from '../guests/reference/build.ts';

const text = readFileSync(new URL('../docs/costs.md', import.meta.url), 'utf8');

/** First words of the lines of a table that begins with some words, in a part of the document. */
function namesIn(part: string, beginning: string): string[] {
  const [, table = ''] = part.split(`\n    ${beginning} `);
  const [lines = ''] = table.split('\n\n');
  return [...lines.matchAll(/^ {4}(\S+(?: nolazy)?) /gm)].map(([, name = '']) => name);
}

describe.each(IMAGES)('docs/costs.md about %s', (image) => {
  const [, part = ''] = text.split(`\n## ${image}\n`);

  test.each(Object.keys(ITEMS))('has what a %s costs in every cell, with lazy mode and without', (item) => {
    expect(namesIn(part, `one ${item}`)).toEqual(settingsOf(image).map(settingName));
  });
});
