import { InvalidArgumentError, Option } from 'commander'
import type { Durability } from '../revocation/durability.ts'
import { printable } from './printable.ts'

/** `--durable <n>`; 0 when it is absent. */
export function durableOption(): Option {
  return new Option(
    '--durable <replicas>',
    'how many replicas must have it; with fewer this ends with 4, and it is recorded all the same',
  )
    .default(0, 'none')
    .argParser(count)
}

/** What an operator reads of the store, apart from what the sidecars enforce. */
export function durableLine(durability: Durability, wanted: number): string {
  const short = isDurable(durability, wanted) ? '' : `, fewer than --durable ${wanted}`
  if (durability.kind === 'unknown') return `durable   not known: ${printable(durability.why)}`
  const { replicas, connected, onDisk } = durability
  const where = connected === 0 ? 'on 1 server, no replica' : `on ${replicas}/${connected} replicas`
  const disk =
    onDisk === undefined ? '' : `, ${onDisk ? 'and' : 'but not yet'} on the disk of the master`
  return `durable   ${where}${disk}${short}`
}

export function durableJson(durability: Durability): object {
  if (durability.kind === 'unknown') return { unknown: durability.why }
  const { replicas, connected, onDisk } = durability
  return { replicas, connected, ...(onDisk !== undefined && { on_disk: onDisk }) }
}

export function isDurable(durability: Durability, wanted: number): boolean {
  return wanted === 0 || (durability.kind === 'known' && durability.replicas >= wanted)
}

const maxReplicas = 100

function count(text: string): number {
  if (/^\d{1,3}$/.test(text) && Number(text) <= maxReplicas) return Number(text)
  throw new InvalidArgumentError(`Expected a number from 0 to ${maxReplicas}.`)
}
