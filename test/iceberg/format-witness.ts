/** Iceberg's own Python library, as a stranger that the format is compared with: format-witness.py does what it is asked. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ensurePyiceberg } from './pyiceberg.ts';
import { ReaderProcess } from './reader-process.ts';

const program = join(import.meta.dirname, 'format-witness.py');

export class FormatWitness {
  readonly #process: ReaderProcess;

  private constructor(process: ReaderProcess) {
    this.#process = process;
  }

  /** @param folder for its log */
  static async start(folder: string): Promise<FormatWitness> {
    await mkdir(folder, { recursive: true });
    const modules = await ensurePyiceberg((line) => void process.stderr.write(`${line}\n`));
    const env = { ...process.env, PYTHONPATH: modules, PYTHONDONTWRITEBYTECODE: '1' };
    return new FormatWitness(
      await ReaderProcess.start({
        file: 'python3',
        args: [program],
        env,
        cwd: folder,
        logFile: join(folder, 'format-witness.log'),
      }),
    );
  }

  /** @param command a function of format-witness.py */
  async ask<Answer>(command: string, question: unknown): Promise<Answer> {
    const { answer } = (await this.#process.ask({ command, question })) as { answer: Answer };
    return answer;
  }

  stop(): Promise<void> {
    return this.#process.stop();
  }
}
