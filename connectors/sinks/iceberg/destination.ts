/** The destination of either mode: who owns it, Windows one after the other, upkeep and tags between them. */
import { join } from 'node:path';
import { asTidemarkError, TidemarkError } from '../../../src/connector/failure.ts';
import type {
  AppendWindow,
  Held,
  Holding,
  Maintainable,
  MergeWindow,
  Receipt,
  SinkContext,
  Tag,
  Taggable,
  UpkeepDone,
  UpkeepRequest,
} from '../../../src/connector/sink.ts';
import { StaleMerge } from './commit/table-commit.ts';
import { Lake, type OpenTable } from './lake.ts';
import type { IcebergSettings } from './options.ts';
import { TableCache } from './plan/table-cache.ts';
import { checkToken, decideWindow, ProgressTable } from './progress/progress-table.ts';
import { sweepAttempts } from './progress/sweep-attempts.ts';
import type { Surroundings } from './running-table.ts';
import { dropTag, readTags, type TagPlace, tagTables } from './tag/tag-tables.ts';
import type { UpkeepPlace } from './upkeep/commit-upkeep.ts';
import { maintain } from './upkeep/maintain.ts';
import { Tidying } from './upkeep/tidying.ts';

type Window = MergeWindow | AppendWindow;

/** Times that a Window is made anew because others changed the tables meanwhile. */
const windowTries = 5;

export abstract class Destination implements Holding, Maintainable, Taggable {
  protected readonly context: SinkContext;
  protected readonly settings: IcebergSettings;
  readonly #cache: TableCache;
  #lake: Promise<Lake> | null = null;
  /** The token that this process took the Unit over with; null until it did, and after every failure. */
  #owned: bigint | null = null;
  #turn: Promise<unknown> = Promise.resolve();
  /** Windows that wait for their turn. */
  #waiting = 0;
  readonly #tidying: Tidying;

  constructor(context: SinkContext, settings: IcebergSettings) {
    this.context = context;
    this.settings = settings;
    this.#tidying = new Tidying(settings);
    this.#cache = new TableCache(join(context.scratchDirectory, 'files'), settings.cacheBytes, (bytes) =>
      context.log(
        'warn',
        'the index of a table needs more than iceberg.cache.bytes: each Window makes it anew',
        {
          bytes,
        },
      ),
    );
  }

  /** @throws TidemarkError TM401, TM402, TM405 */
  async held(_unit: string): Promise<Held | null> {
    return (await this.progressTable()).held();
  }

  /** Brings a Window into the tables that are as `progress` has them. @throws StaleMerge where it has to be made again */
  protected abstract write(window: Window, at: Surroundings, progress: OpenTable): Promise<Receipt>;

  /** What a crash right after the commit of a Window left out. */
  protected async makeUp(_window: Window, _lake: Lake): Promise<void> {}

  /** @throws TidemarkError TM401 to TM405, TM407; errors of the Window's own row streams unchanged */
  protected take(window: Window): Promise<Receipt> {
    this.#waiting += 1;
    return this.#inTurn(async () => {
      this.#waiting -= 1;
      const receipt = await this.#writeInTurn(window);
      if (!receipt.alreadyHeld && this.#tidying.note(window)) void this.#inTurn(() => this.#tidy());
      return receipt;
    });
  }

  /** Whatever becomes of it, Windows go on. */
  async #tidy(): Promise<void> {
    try {
      const place = await this.#upkeepPlace();
      if (place) await this.#tidying.run(place, () => this.#waiting > 0);
    } catch {
      // Neither catalog nor store answers: the next Window says so.
    }
  }

  async #upkeepPlace(): Promise<UpkeepPlace | null> {
    const lake = await this.openLake();
    const progress = await (await this.progressTable()).load();
    return progress && { lake, context: this.context, settings: this.settings, cache: this.#cache, progress };
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work, work);
    this.#turn = turn;
    return turn;
  }

  /** @throws TidemarkError TM401, TM402, TM405, TM406 */
  maintain(request: UpkeepRequest): Promise<UpkeepDone[]> {
    return this.#inTurn(async () => {
      const place = await this.#upkeepPlace();
      // Nothing was ever delivered.
      if (!place) return [];
      return maintain(place, request);
    });
  }

  tag(name: string): Promise<Tag> {
    return this.#inTurn(async () => tagTables(await this.#tagPlace(), name));
  }

  async tags(): Promise<Tag[]> {
    const progress = await (await this.progressTable()).load();
    return progress === null ? [] : readTags(progress);
  }

  dropTag(name: string): Promise<Tag | null> {
    return this.#inTurn(async () => dropTag(await this.#tagPlace(), name));
  }

  async #tagPlace(): Promise<TagPlace> {
    const place = await this.#upkeepPlace();
    if (place) return { ...place, namespace: this.settings.namespace };
    throw new TidemarkError('TM408', `${this.context.destination} holds nothing yet`, {
      remedy: 'Wait for its first Window: `tidemark status`.',
    });
  }

  async close(): Promise<void> {
    const tidied = this.#tidying.close();
    await this.#turn.catch(() => undefined);
    await tidied;
    this.#cache.close();
    const lake = await this.#lake?.catch(() => null);
    await lake?.close();
  }

  protected async openLake(): Promise<Lake> {
    const opening = this.#lake ?? Lake.open(this.settings);
    this.#lake = opening;
    try {
      return await opening;
    } catch (error) {
      this.#lake = null;
      throw error;
    }
  }

  protected async progressTable(): Promise<ProgressTable> {
    return new ProgressTable(await this.openLake(), this.context, this.settings.namespace);
  }

  async #writeInTurn(window: Window): Promise<Receipt> {
    for (let tries = 1; ; tries += 1) {
      try {
        const receipt = await this.#write(window);
        await this.#cache.trim();
        return receipt;
      } catch (error) {
        this.#owned = null;
        const lake = await this.openLake().catch(() => null);
        await lake?.forget(asTidemarkError(error).code === 'TM402');
        if (!(error instanceof StaleMerge) || tries === windowTries) throw error;
        this.context.log('info', 'others changed a table meanwhile: the Window is made again', {
          sequence: window.sequence,
        });
      }
    }
  }

  async #write(window: Window): Promise<Receipt> {
    const lake = await this.openLake();
    const progressTable = await this.progressTable();
    const { fencingToken: token } = window;
    let progress = await progressTable.load();
    if (progress) checkToken(progress, token, this.context);
    if (progress === null || this.#owned !== token) {
      progress = await progressTable.takeOver(token);
      const removed = await sweepAttempts(lake, progress, token);
      if (removed > 0)
        this.context.log('info', 'removed files of attempts that did not come into a table', {
          files: removed,
        });
      progress = (await progressTable.load()) ?? progress;
      this.#owned = token;
    }
    const already = decideWindow(window, progressTable.mark(progress));
    if (already) {
      await this.makeUp(window, lake);
      return already;
    }
    await this.context.failpoint('iceberg-sink-begun');
    const at = { context: this.context, settings: this.settings, lake, progressTable, cache: this.#cache };
    return this.write(window, at, progress);
  }
}
