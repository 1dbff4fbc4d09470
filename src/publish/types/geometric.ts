/** Geometric types: float8 coordinates, printed as geo_ops.c prints them. point is Debezium's Point, the rest is text. */
import type { ByteWriter } from '../byte-writer.ts';
import type { BinaryText, Codec } from './codec.ts';
import { float8Text } from './integers.ts';

export const pointText: BinaryText = (bytes, start) =>
  `(${float8Text(bytes.readDoubleBE(start))},${float8Text(bytes.readDoubleBE(start + 8))})`;

function points(bytes: Buffer, start: number, count: number): string {
  return Array.from({ length: count }, (_, i) => pointText(bytes, start + i * 16, 0)).join(',');
}

export const lineText: BinaryText = (bytes, start) =>
  `{${[0, 8, 16].map((offset) => float8Text(bytes.readDoubleBE(start + offset))).join(',')}}`;

export const segmentText: BinaryText = (bytes, start) => `[${points(bytes, start, 2)}]`;

export const boxText: BinaryText = (bytes, start) => points(bytes, start, 2);

/** A byte that says whether the path is closed, the number of points, the points. */
export const pathText: BinaryText = (bytes, start) => {
  const inner = points(bytes, start + 5, bytes.readInt32BE(start + 1));
  return bytes[start] ? `(${inner})` : `[${inner}]`;
};

export const polygonText: BinaryText = (bytes, start) =>
  `(${points(bytes, start + 4, bytes.readInt32BE(start))})`;

export const circleText: BinaryText = (bytes, start) =>
  `<${pointText(bytes, start, 0)},${float8Text(bytes.readDoubleBE(start + 16))}>`;

/** Debezium's Point: the coordinates, and the same as well-known binary, little-endian, without a reference system. */
export const point: Codec = {
  schema: {
    type: 'record',
    name: 'Point',
    namespace: 'io.debezium.data.geometry',
    fields: [
      { name: 'x', type: 'double' },
      { name: 'y', type: 'double' },
      { name: 'wkb', type: ['null', 'bytes'], default: null },
      { name: 'srid', type: ['null', 'int'], default: null },
    ],
    'connect.doc': 'Geometry (POINT)',
    'connect.version': 1,
    'connect.name': 'io.debezium.data.geometry.Point',
  },
  encode(bytes, start, _end, out) {
    writePoint(bytes.readDoubleBE(start), bytes.readDoubleBE(start + 8), out);
    return true;
  },
  encodeText(bytes, start, end, out) {
    const [x, y] = bytes
      .toString('latin1', start + 1, end - 1)
      .split(',')
      .map(Number);
    writePoint(x!, y!, out);
    return true;
  },
  text: pointText,
  decode(reader) {
    const { bytes, position } = reader;
    reader.position += 16;
    if (reader.byte() !== 0) reader.lengthPrefixed();
    if (reader.byte() !== 0) reader.long();
    return `(${float8Text(bytes.readDoubleLE(position))},${float8Text(bytes.readDoubleLE(position + 8))})`;
  },
};

function writePoint(x: number, y: number, out: ByteWriter): void {
  const coordinates = () => {
    out.ensure(16);
    out.bytes.writeDoubleLE(x, out.position);
    out.bytes.writeDoubleLE(y, out.position + 8);
    out.position += 16;
  };
  coordinates();
  out.byte(2);
  out.long(21);
  out.byte(1);
  out.ensure(4);
  out.bytes.writeInt32LE(1, out.position);
  out.position += 4;
  coordinates();
  out.byte(0); // srid: null
}
