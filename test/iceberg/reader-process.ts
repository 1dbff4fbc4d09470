/** A program that takes a line of JSON for each request and answers in the same order, for as long as we live. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';

export interface ReaderCommand {
  file: string;
  args: string[];
  env: NodeJS.ProcessEnv;
  cwd: string;
  /** Gets what it prints on standard error. */
  logFile: string;
}

interface Waiting {
  resolve(answer: unknown): void;
  reject(error: Error): void;
}

export class ReaderProcess {
  readonly #child: ChildProcess;
  readonly #waiting: Waiting[] = [];
  readonly #ended: Promise<void>;
  #closed: string | null = null;

  private constructor({ file, args, env, cwd, logFile }: ReaderCommand) {
    const log = createWriteStream(logFile);
    // A group of its own: Spark's engine is a child of the program, and holds its standard error open.
    this.#child = spawn(file, args, { env, cwd, stdio: ['pipe', 'pipe', 'pipe'], detached: true });
    this.#child.stderr!.pipe(log);
    this.#child.stdin!.on('error', () => undefined);
    void this.#readAnswers();
    this.#ended = new Promise((resolve) => {
      const end = (reason: string) => {
        this.#closed = `the reader ended (${reason}); its log is ${logFile}`;
        for (const { reject } of this.#waiting.splice(0)) reject(new Error(this.#closed));
        resolve();
      };
      this.#child.once('error', (error) => end(error.message));
      this.#child.once('close', (code, signal) => end(signal ?? `code ${code}`));
    });
  }

  /** Resolves when it is ready for requests. */
  static async start(command: ReaderCommand): Promise<ReaderProcess> {
    const started = new ReaderProcess(command);
    await started.#answer();
    return started;
  }

  /** @throws Error with what the program says is wrong */
  async ask(request: unknown): Promise<unknown> {
    if (this.#closed !== null) throw new Error(this.#closed);
    this.#child.stdin!.write(`${JSON.stringify(request)}\n`);
    return this.#answer();
  }

  /** Its standard input ends, and then it does; it has nothing to lose, so it is not waited for long. */
  async stop(): Promise<void> {
    this.#child.stdin!.end();
    const timer = setTimeout(() => process.kill(-this.#child.pid!, 'SIGKILL'), 2_000);
    await this.#ended;
    clearTimeout(timer);
  }

  async #readAnswers(): Promise<void> {
    let line = '';
    // node:readline would also end lines at U+2028, which stands in JSON as itself.
    for await (const chunk of this.#child.stdout!.setEncoding('utf8')) {
      const [rest, ...lines] = (chunk as string).split('\n').reverse();
      if (lines.length === 0) {
        line += rest;
        continue;
      }
      for (const [i, part] of lines.reverse().entries()) this.#take(i === 0 ? line + part : part);
      line = rest!;
    }
  }

  #take(line: string): void {
    const answer = JSON.parse(line) as { error?: string };
    const next = this.#waiting.shift();
    if (answer.error === undefined) next?.resolve(answer);
    else next?.reject(new Error(answer.error));
  }

  #answer(): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
    });
  }
}
