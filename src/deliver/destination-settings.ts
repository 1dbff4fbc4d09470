/** A destination's settings as its instance file has them at present, and the sink that was opened with them. */
import type { SinkContext, SinkKind } from '../connector/sink.ts';
import { errorFields, type Logger } from '../platform/log.ts';
import type { DestinationConfig } from '../platform/resolved-config.ts';
import { credentialsFingerprint } from './credentials.ts';
import type { Ledger } from './ledger.ts';
import { type OpenSink, SinkInUse } from './sink-in-use.ts';

export interface DestinationSettingsOptions {
  kind: SinkKind;
  ledger: Ledger;
  sourceId: string;
  first: DestinationConfig;
  /** A context of its own for each sink. */
  context(): Promise<SinkContext>;
  log: Logger;
}

/** What a look at the instance file brought: the sink's own options, other settings, or nothing. */
export type SettingsChange = 'none' | 'settings' | 'options';

export class DestinationSettings {
  readonly #options: DestinationSettingsOptions;
  #current: DestinationConfig;
  #sink: SinkInUse | null = null;
  /** Options that were tried and refused, so that they are not tried again and again. */
  #refused: string | null = null;

  constructor(options: DestinationSettingsOptions) {
    this.#options = options;
    this.#current = options.first;
  }

  get current(): DestinationConfig {
    return this.#current;
  }

  /** Null before it was opened. */
  get sink(): SinkInUse | null {
    return this.#sink;
  }

  /** @throws what the sink throws; TidemarkError TM409 */
  async open(): Promise<void> {
    this.#sink ??= new SinkInUse(await this.#openSink(this.#current), this.#options.log);
  }

  /** The destination refuses those in use: what it refused before may be what it wants by now. */
  reconsider(): void {
    this.#refused = null;
  }

  async apply(found: DestinationConfig): Promise<SettingsChange> {
    const before = this.#current;
    const next = this.#withFixed(found);
    const options = JSON.stringify(next.options);
    const replaces = options !== JSON.stringify(before.options);
    if (replaces && (options === this.#refused || !(await this.#tried(next)))) {
      this.#current = { ...next, options: before.options };
    } else this.#current = next;
    if (JSON.stringify(this.#current) === JSON.stringify(before)) return 'none';
    this.#options.log.info('settings changed', { credentials: this.#sink?.credentials ?? null });
    return this.#current.options === before.options || !replaces ? 'settings' : 'options';
  }

  /** What is subscribed decides what was read already: it changes with the next start. */
  #withFixed(next: DestinationConfig): DestinationConfig {
    const { kind, tables, tenant } = this.#current;
    if (JSON.stringify([next.kind, next.tables, next.tenant]) === JSON.stringify([kind, tables, tenant]))
      return next;
    this.#options.log.warn(
      'connector.class, tables and tenant change with the next start; until then they stay',
    );
    return { ...next, kind, tables, tenant };
  }

  /** New options are used once the destination accepts them; until then the old ones are. */
  async #tried(next: DestinationConfig): Promise<boolean> {
    const { kind, ledger, context, log } = this.#options;
    try {
      // Where nothing is open yet, opening tries them.
      if (!this.#sink) return true;
      const findings = await kind.check(await context(), next.options);
      const refusal = findings.find(({ level }) => level === 'error');
      if (!refusal) {
        this.#sink.replace(await this.#openSink(next));
        this.#refused = null;
        return true;
      }
      this.#refused = JSON.stringify(next.options);
      const { what, remedy } = refusal;
      log.warn('the new settings are refused; those from before stay in use', { what, remedy });
      await ledger.recordCredentialsProblem(next.name, what);
    } catch (error) {
      log.warn('the new settings could not be tried; those from before stay', errorFields(error));
    }
    return false;
  }

  async #openSink(settings: DestinationConfig): Promise<OpenSink> {
    const { kind, ledger, context, sourceId } = this.#options;
    const sink = await kind.open(await context(), settings.options);
    try {
      const salt = `${sourceId}/${settings.name}`;
      const fingerprint = await credentialsFingerprint(kind.options, settings.options, salt);
      return { sink, credentials: await ledger.credentialsVersion(settings.name, fingerprint) };
    } catch (error) {
      // It is opened anew when the ledger answers.
      await sink.close().catch(() => {});
      throw error;
    }
  }
}
