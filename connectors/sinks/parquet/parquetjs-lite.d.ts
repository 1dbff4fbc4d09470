/** The part of parquetjs-lite that the sink uses; the package ships no types. */
declare module 'parquetjs-lite' {
  export interface ParquetField {
    type: string;
    optional?: boolean;
    repeated?: boolean;
    compression?: string;
    statistics?: boolean;
  }
  export class ParquetSchema {
    constructor(fields: Record<string, ParquetField>);
  }
  export class ParquetWriter {
    static openFile(
      schema: ParquetSchema,
      path: string,
      options: { rowGroupSize: number; pageSize?: number; useDataPageV2?: boolean },
    ): Promise<ParquetWriter>;
    appendRow(row: Record<string, unknown>): Promise<void>;
    /** Rows after which the next appendRow writes the row group. */
    setRowGroupSize(rows: number): void;
    close(): Promise<void>;
  }
  const parquet: { ParquetSchema: typeof ParquetSchema; ParquetWriter: typeof ParquetWriter };
  export default parquet;
}
