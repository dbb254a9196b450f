import { InvalidArgumentError } from 'commander'

/** One line of text for `--reason`. */
export function reason(text: string): string {
  if (text.trim() !== '' && text.length <= 512 && !/\p{Cc}/u.test(text)) return text
  throw new InvalidArgumentError('Expected 1 to 512 characters without control characters.')
}
