/** One server of the stack as a child process: start, wait until ready, stop, notice its death. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { open, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PartName, StackLayout } from './layout.ts';
import type { Part } from './part.ts';
import { endProcess, type ProcessRecord, readProcess, recordProcess, signalProcess } from './process.ts';
import { lastLines } from './program.ts';
import { stackError } from './stack-error.ts';

const readyTimeoutMs = 90_000;
const pollMs = 25;
const retryForMs = 20_000;
const largestLogBytes = 16 * 1024 * 1024;

/** A server that ended although nobody asked it to. */
export interface PartDeath {
  part: PartName;
  title: string;
  /** "code 1" or "SIGKILL". */
  reason: string;
  logFile: string;
  /** The end of its log. */
  lastLines: string;
}

interface Running {
  child: ChildProcess;
  guard: ChildProcess;
  /** Resolves with "code 1" or the signal's name, when the process is gone. */
  ended: Promise<string>;
  isEnded: boolean;
  record: ProcessRecord;
  logStart: number;
}

export class ServerProcess {
  readonly part: Part;
  readonly logFile: string;
  readonly #recordFile: string;
  readonly #onDeath: (death: PartDeath) => void;
  #running: Running | undefined;
  #stopping = false;

  constructor(part: Part, layout: StackLayout, onDeath: (death: PartDeath) => void) {
    this.part = part;
    this.logFile = join(layout.logs, `${part.name}.log`);
    this.#recordFile = join(layout.run, `${part.name}.json`);
    this.#onDeath = onDeath;
  }

  /** The pid while it runs. */
  get pid(): number | undefined {
    return this.#running?.isEnded === false ? this.#running.record.pid : undefined;
  }

  /**
   * Starts the server and waits until a client gets work done.
   * @throws the signal's reason; nothing runs by then
   */
  async start(signal?: AbortSignal): Promise<void> {
    if (this.pid !== undefined) throw new Error(`${this.part.title} runs already`);
    this.#stopping = false;
    const retryUntil = Date.now() + retryForMs;
    for (;;) {
      const running = await this.#spawn(signal);
      try {
        await this.#waitUntilReady(running, signal);
        this.#watch(running);
        return;
      } catch (error) {
        await this.stop('SIGKILL');
        this.#stopping = false;
        signal?.throwIfAborted();
        const log = await readFrom(this.logFile, running.logStart);
        if (!this.part.startMayBeRetried?.(log) || Date.now() > retryUntil) throw error;
      }
      await sleep(200);
    }
  }

  /** Ends the server with this signal (its own way of stopping cleanly by default) and waits until it is gone. */
  async stop(signal: NodeJS.Signals = this.part.stopSignal): Promise<void> {
    const running = this.#running;
    if (running === undefined) return;
    this.#stopping = true;
    if (!running.isEnded) await endProcess({ ...running.record, stopSignal: signal });
    await running.ended;
    this.#running = undefined;
    await rm(this.#recordFile, { force: true });
    if (signal !== 'SIGKILL') await this.part.afterStop?.();
  }

  async #spawn(signal: AbortSignal | undefined): Promise<Running> {
    signal?.throwIfAborted();
    const command = await this.part.prepare();
    signal?.throwIfAborted();
    await setAsideLargeLog(this.logFile);
    const log = await open(this.logFile, 'a');
    const logStart = (await log.stat()).size;
    const { file, args, ...options } = command;
    // Detached: a Ctrl-C in the terminal must reach us alone, so that the servers are stopped in order.
    const child = spawn(file, args, { ...options, detached: true, stdio: ['ignore', log.fd, log.fd] });
    let running: Running | undefined;
    const ended = new Promise<string>((resolve) => {
      child.once('error', (error) => resolve(`${(error as NodeJS.ErrnoException).code ?? error.name}`));
      child.once('exit', (code, signal) => resolve(signal ?? `code ${code}`));
    }).then((reason) => {
      if (running) {
        running.isEnded = true;
        running.guard.kill('SIGKILL');
      }
      return reason;
    });
    await log.close();
    if (child.pid === undefined) {
      throw stackError(`${this.part.title} cannot be started: ${file} ${await ended}`, startRemedy(file));
    }
    child.unref();
    const { mark, stopSignal, stopTimeoutMs } = this.part;
    const record = { pid: child.pid, mark, stopSignal, stopTimeoutMs };
    running = {
      child,
      guard: startGuard(child.pid, stopSignal),
      ended,
      isEnded: child.exitCode !== null || child.signalCode !== null,
      record: { ...record, startedAt: readProcess(child.pid)?.startedAt ?? '' },
      logStart,
    };
    if (running.isEnded) running.guard.kill('SIGKILL');
    this.#running = running;
    await recordProcess(this.#recordFile, record);
    return running;
  }

  async #waitUntilReady(running: Running, signal: AbortSignal | undefined): Promise<void> {
    const deadline = Date.now() + readyTimeoutMs;
    let lastError: unknown;
    for (;;) {
      if (running.isEnded) {
        throw await this.#startError(running, `ended while starting (${await running.ended})`, lastError);
      }
      try {
        return await this.part.ready();
      } catch (error) {
        lastError = error;
      }
      signal?.throwIfAborted();
      if (Date.now() > deadline) {
        throw await this.#startError(running, `was not ready after ${readyTimeoutMs / 1000} s`, lastError);
      }
      await sleep(pollMs);
    }
  }

  async #startError(running: Running, what: string, cause: unknown): Promise<Error> {
    const log = lastLines(await readFrom(this.logFile, running.logStart), 12);
    return stackError(
      `${this.part.title} ${what}. Its last lines:\n${log}`,
      `Look into ${this.logFile}`,
      cause,
    );
  }

  #watch(running: Running): void {
    void running.ended.then(async (reason) => {
      if (this.#stopping || this.#running !== running) return;
      const log = await readFrom(this.logFile, running.logStart).catch(() => '');
      const { name: part, title } = this.part;
      this.#onDeath({ part, title, reason, logFile: this.logFile, lastLines: lastLines(log, 12) });
    });
  }
}

/**
 * A shell that waits for its standard input to end, which happens when we die, however hard, and then stops the
 * server. It has a session of its own and so outlives a signal to our process group.
 */
function startGuard(pid: number, signal: NodeJS.Signals): ChildProcess {
  const script = `read -r _; kill -s ${signal.slice(3)} ${pid}`;
  const guard = spawn('/bin/sh', ['-c', script], { detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
  guard.once('error', () => undefined);
  guard.stdin?.once('error', () => undefined);
  (guard.stdin as unknown as { unref?: () => void } | null)?.unref?.();
  guard.unref();
  return guard;
}

function startRemedy(file: string): string {
  return process.getuid?.() === 0
    ? `Check that the user postgres may enter every folder above ${file}, or run this as another user than root.`
    : `Check that ${file} may be executed.`;
}

async function setAsideLargeLog(file: string): Promise<void> {
  if (existsSync(file) && (await stat(file)).size > largestLogBytes) await rename(file, `${file}.1`);
}

/** The log from a place on, at most its last 64 KiB. */
async function readFrom(file: string, position: number): Promise<string> {
  const handle = await open(file, 'r');
  try {
    const { size } = await handle.stat();
    const start = Math.max(position, size - 65_536);
    const buffer = Buffer.alloc(Math.max(0, size - start));
    await handle.read(buffer, 0, buffer.length, start);
    return buffer.toString('utf8');
  } finally {
    await handle.close();
  }
}

/** Sends a signal to the server without waiting: for fault tests that pause it (SIGSTOP, SIGCONT). */
export function signalServer(server: ServerProcess, signal: NodeJS.Signals): void {
  if (server.pid === undefined) throw new Error(`${server.part.title} does not run`);
  signalProcess(server.pid, signal);
}
