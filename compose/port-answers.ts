import { connect } from 'node:net';
import { loopback } from './ports.ts';

/** Resolves when something accepts connections on a loopback port; rejects otherwise. */
export function answersTcp(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: loopback, port });
    socket.setTimeout(2_000, () => socket.destroy(new Error('no answer')));
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.destroy();
      resolve();
    });
  });
}
