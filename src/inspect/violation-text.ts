import { rules, type Violation } from '../ops/contracts.ts';
import { hexadecimal, symbolText } from './text.ts';

/** One line: operation, place, rule, state. */
export function formatViolation(violation: Violation): string {
  const { rule, operation, vcpu, rip, symbol, state } = violation;
  const facts = Object.entries(state as unknown as Record<string, unknown>).map(
    ([name, value]) => `${name}=${stateText(name, value)}`,
  );
  return `contract of ${operation} broken at ${symbolText(rip, symbol)} on vcpu ${vcpu}: ${rule}: ${rules[rule].text} (${facts.join(' ')})`;
}

const addressFacts: readonly string[] = ['address', 'changedAt', 'page', 'table', 'root', 'space', 'reachedTable'];
const wordFacts: readonly string[] = ['wantedLow', 'wantedHigh', 'foundLow', 'foundHigh', 'walkedBy'];

function stateText(name: string, value: unknown): string {
  if (typeof value !== 'number') return String(value);
  if (addressFacts.includes(name) || wordFacts.includes(name))
    return hexadecimal(name === 'walkedBy' ? value >>> 0 : value);
  return String(value);
}
