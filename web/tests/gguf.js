// Takes a GGUF file apart and puts others together of its pieces: as little of the format as the tests need.

const SCALARS = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
const [U16, I32] = [2, 5];
const aligned = (at, to) => Math.ceil(at / to) * to;

/** Where a file's keys, each of its tensors' entries, and its tensors' bytes lie. Entries: { start, offsetAt, end }. */
export function parts(bytes) {
  let at = 4 + 4; // magic, version
  const u32 = () => bytes.readUInt32LE((at += 4) - 4);
  const u64 = () => Number(bytes.readBigUInt64LE((at += 8) - 8));
  const text = () => {
    const length = u64();
    return bytes.toString("utf8", at, (at += length));
  };
  const value = (type) => {
    if (type === 8) text();
    else if (type === 9) {
      const [of, count] = [u32(), u64()];
      for (let i = 0; i < count; i += 1) value(of);
    } else at += SCALARS[type];
  };
  const [tensors, count] = [u64(), u64()];
  const keys = { count, start: at };
  let alignment = 32;
  for (let i = 0; i < count; i += 1) {
    const [key, type] = [text(), u32()];
    if (key === "general.alignment") alignment = bytes.readUInt32LE(at);
    value(type);
  }
  keys.end = at;
  const entries = Array.from({ length: tensors }, () => {
    const start = at;
    text();
    const dimensions = u32();
    at += 8 * dimensions + 4;
    const offsetAt = at;
    return { start, offsetAt, offset: u64(), end: at };
  });
  return { keys, entries, alignment, data: aligned(at, alignment) };
}

const number = (type, write) => (key, value) => {
  const head = Buffer.alloc(8 + key.length + 4);
  head.writeBigUInt64LE(BigInt(key.length));
  head.write(key, 8);
  head.writeUInt32LE(type, 8 + key.length);
  return Buffer.concat([head, write(value)]);
};
const u16 = number(U16, (value) => Buffer.from(new Uint16Array([value]).buffer));
const i32 = number(I32, (value) => Buffer.from(new Int32Array([value]).buffer));

const string = number(8, (value) => {
  const text = Buffer.from(value);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text]);
});

/** The file with one more key, a text. */
export function withText(bytes, key, value) {
  const { keys, entries, alignment, data } = parts(bytes);
  const counts = Buffer.alloc(8);
  counts.writeBigUInt64LE(BigInt(keys.count + 1));
  const kept = bytes.subarray(keys.start, entries.at(-1).end);
  const head = Buffer.concat([bytes.subarray(0, 16), counts, string(key, value), kept]);
  return Buffer.concat([head, Buffer.alloc(aligned(head.length, alignment) - head.length), bytes.subarray(data)]);
}

/** The file as so many of one model, as `gguf-split` cuts it: all keys in the first, tensors shared out in their order. */
export function split(bytes, count) {
  const { keys, entries, alignment, data } = parts(bytes);
  const first = (no) => Math.floor((no * entries.length) / count);
  return Array.from({ length: count }, (_, no) => {
    const own = entries.slice(first(no), first(no + 1));
    const from = own[0].offset;
    const next = entries[first(no + 1)];
    const moved = own.map((entry) => {
      const copy = Buffer.from(bytes.subarray(entry.start, entry.end));
      copy.writeBigUInt64LE(BigInt(entry.offset - from), entry.offsetAt - entry.start);
      return copy;
    });
    const splits = [u16("split.no", no), u16("split.count", count), i32("split.tensors.count", entries.length)];
    const kept = no === 0 ? bytes.subarray(keys.start, keys.end) : Buffer.alloc(0);
    const counts = Buffer.alloc(16);
    counts.writeBigUInt64LE(BigInt(own.length));
    counts.writeBigUInt64LE(BigInt((no === 0 ? keys.count : 0) + splits.length), 8);
    const head = Buffer.concat([bytes.subarray(0, 8), counts, kept, ...splits, ...moved]);
    const padding = Buffer.alloc(aligned(head.length, no === 0 ? alignment : 32) - head.length);
    return Buffer.concat([head, padding, bytes.subarray(data + from, next && data + next.offset)]);
  });
}
