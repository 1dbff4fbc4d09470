"""
Reads Iceberg tables with pyiceberg or DuckDB for whoever writes a line of JSON to standard input, and answers each with
one on standard output. Cells are text in the raw forms of raw-cell.ts. With pyiceberg it also writes tables, and applies
updates to metadata as a catalog would: the tests' independent witness for both.
"""

import decimal
import glob
import importlib.util
import json
import os
import struct
import sys
import uuid

import pyarrow as pa

sys.set_int_max_str_digits(0)


def kind_of(type):
    if isinstance(type, pa.BaseExtensionType) and type.extension_name == "arrow.uuid":
        return "uuid"
    if pa.types.is_list(type) or pa.types.is_large_list(type):
        return "list:" + kind_of(type.value_type)
    if pa.types.is_boolean(type):
        return "boolean"
    if pa.types.is_integer(type):
        return "integer"
    if pa.types.is_float32(type):
        return "float"
    if pa.types.is_float64(type):
        return "double"
    if pa.types.is_decimal(type):
        return "decimal"
    if pa.types.is_date32(type):
        return "date"
    if pa.types.is_time64(type):
        return "time"
    if pa.types.is_timestamp(type):
        return "timestamp" if type.tz is None else "timestamptz"
    if pa.types.is_string(type) or pa.types.is_large_string(type):
        return "text"
    if pa.types.is_binary(type) or pa.types.is_large_binary(type) or pa.types.is_fixed_size_binary(type):
        return "binary"
    raise ValueError(f"no raw form for {type}")


def raw_cells(array, kind):
    """Dates and times as the numbers they are: Python's own end with the year 9999."""
    if kind == "uuid":
        return [None if cell is None else str(uuid.UUID(bytes=cell)) for cell in array.storage.to_pylist()]
    if kind.startswith("list:"):
        return [raw_cells(cell.values, kind[5:]) if cell.is_valid else None for cell in array]
    if kind == "date":
        array = array.cast(pa.int32())
    elif kind in ("time", "timestamp", "timestamptz"):
        if array.type.unit != "us":
            raise ValueError(f"no raw form for {array.type}")
        array = array.cast(pa.int64())
    return [None if cell is None else raw_text(cell, kind) for cell in array.to_pylist()]


def raw_text(cell, kind):
    if kind == "boolean":
        return "true" if cell else "false"
    if kind == "float":
        return str(struct.unpack(">I", struct.pack(">f", cell))[0])
    if kind == "double":
        return str(struct.unpack(">Q", struct.pack(">d", cell))[0])
    if kind == "decimal":
        return format(cell, "f")
    if kind == "binary":
        return cell.hex()
    return str(cell)


def answer_with(table):
    kinds = [kind_of(field.type) for field in table.schema]
    columns = [
        [cell for chunk in column.chunks for cell in raw_cells(chunk, kind)]
        for column, kind in zip(table.columns, kinds)
    ]
    return {
        "columns": table.schema.names,
        "kinds": kinds,
        "rows": [list(row) for row in zip(*columns)] if table.num_rows > 0 else [],
    }


class PyIceberg:
    def __init__(self):
        from pyiceberg.catalog import load_catalog

        self.load_catalog = load_catalog
        self.catalogs = {}

    def catalog(self, properties):
        key = json.dumps(properties, sort_keys=True)
        if key not in self.catalogs:
            self.catalogs[key] = self.load_catalog("test", **properties)
        return self.catalogs[key]

    def read(self, request):
        table = self.catalog(request["properties"]).load_table((*request["namespace"], request["table"]))
        snapshot = request.get("snapshot")
        return answer_with(table.scan(snapshot_id=None if snapshot is None else int(snapshot)).to_arrow())

    def write(self, request):
        """Creates the table where it is missing, and appends rows of raw cells."""
        from pyiceberg.exceptions import NoSuchTableError
        from pyiceberg.schema import Schema

        catalog = self.catalog(request["properties"])
        namespace = tuple(request["namespace"])
        name = (*namespace, request["table"])
        try:
            table = catalog.load_table(name)
        except NoSuchTableError:
            for levels in range(1, len(namespace) + 1):
                catalog.create_namespace_if_not_exists(namespace[:levels])
            schema = Schema.model_validate(request["schema"])
            properties = request.get("tableProperties", {})
            table = catalog.create_table(name, schema, location=request.get("location"), properties=properties)
        target = table.schema().as_arrow()
        columns = [
            arrow_array([row[i] for row in request["rows"]], field.type) for i, field in enumerate(target)
        ]
        table.append(pa.Table.from_arrays(columns, schema=target))
        return {"snapshot": str(table.current_snapshot().snapshot_id)}

    def rewrite(self, request):
        """Writes the rows anew that a filter names, or all: other files, the same rows. A deleted one does not come back."""
        table = self.catalog(request["properties"]).load_table((*request["namespace"], request["table"]))
        chosen = {"row_filter": request["filter"]} if request.get("filter") else {}
        rows = table.scan(**chosen).to_arrow()
        table.overwrite(rows, **({"overwrite_filter": request["filter"]} if chosen else {}))
        return {"snapshot": str(table.current_snapshot().snapshot_id)}

    def update(self, request):
        """New metadata from old, as a catalog makes it; null metadata for a new table."""
        from pydantic import TypeAdapter
        from pyiceberg.catalog import MetastoreCatalog
        from pyiceberg.table.metadata import TableMetadataUtil
        from pyiceberg.table.update import TableRequirement, TableUpdate, update_table_metadata

        metadata = request["metadata"]
        base = None if metadata is None else TableMetadataUtil.parse_raw(metadata)
        for each in request["requirements"]:
            TypeAdapter(TableRequirement).validate_python(each).validate(base)
        updates = tuple(TypeAdapter(TableUpdate).validate_python(each) for each in request["updates"])
        made = update_table_metadata(
            MetastoreCatalog._empty_table_metadata() if base is None else base,
            updates,
            enforce_validation=base is None,
            metadata_location=request.get("metadataLocation"),
        )
        return {"metadata": made.model_dump_json(exclude_none=True)}


class DuckDB:
    """
    An instance of its own for each catalog: one that two catalogs are attached to in turn is refused by the first of
    them now and then, with the words of the second (1.5.5).
    """

    def __init__(self):
        import duckdb

        self.duckdb = duckdb
        self.connections = {}

    def connection(self, attach):
        if attach not in self.connections:
            self.connections[attach] = self.open()
        return self.connections[attach]

    def open(self):
        settings = {"allow_unsigned_extensions": "true", "autoinstall_known_extensions": "false"}
        connection = self.duckdb.connect(config=settings)
        for name in ("avro", "httpfs", "iceberg"):
            folder = os.path.dirname(importlib.util.find_spec(f"duckdb_extension_{name}").origin)
            (file,) = glob.glob(f"{folder}/extensions/*/{name}.duckdb_extension")
            connection.execute(f"LOAD {text(file)}")
        connection.execute("SET TimeZone = 'UTC'")
        return connection

    def read(self, request):
        connection = self.connection(request["attach"])
        for statement in request["secrets"]:
            connection.execute(statement)
        connection.execute(request["attach"])
        try:
            at = f" AT (VERSION => {int(request['snapshot'])})" if request.get("snapshot") is not None else ""
            name = f"reader.{identifier('.'.join(request['namespace']))}.{identifier(request['table'])}{at}"
            return answer_with(connection.execute(f"SELECT * FROM {name}").to_arrow_table())
        finally:
            # Attached anew each time: what is read is what the catalog has now.
            connection.execute("DETACH reader")


def text(value):
    return "'" + value.replace("'", "''") + "'"


def identifier(value):
    return '"' + value.replace('"', '""') + '"'


def arrow_array(cells, type):
    """An array of an Arrow type from raw cells."""
    kind = kind_of(type)
    if kind == "uuid":
        storage = pa.array([None if cell is None else uuid.UUID(cell).bytes for cell in cells], pa.binary(16))
        return pa.ExtensionArray.from_storage(type, storage)
    if kind.startswith("list:"):
        offsets, flat = [0], []
        for cell in cells:
            flat.extend(cell or [])
            offsets.append(len(flat))
        mask = pa.array([cell is None for cell in cells])
        values = arrow_array(flat, type.value_type)
        array = pa.LargeListArray if pa.types.is_large_list(type) else pa.ListArray
        width = pa.int64() if pa.types.is_large_list(type) else pa.int32()
        return array.from_arrays(pa.array(offsets, width), values, type=type, mask=mask)
    if kind in ("date", "time", "timestamp", "timestamptz"):
        whole = pa.int32() if kind == "date" else pa.int64()
        return pa.array([None if cell is None else int(cell) for cell in cells], whole).cast(type)
    return pa.array([None if cell is None else python_value(cell, kind) for cell in cells], type)


def python_value(cell, kind):
    if kind == "boolean":
        return cell == "true"
    if kind == "integer":
        return int(cell)
    if kind == "float":
        return struct.unpack(">f", struct.pack(">I", int(cell)))[0]
    if kind == "double":
        return struct.unpack(">d", struct.pack(">Q", int(cell)))[0]
    if kind == "decimal":
        return decimal.Decimal(cell)
    return bytes.fromhex(cell) if kind == "binary" else cell


def main():
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Whatever a library prints goes to the log.
    os.dup2(2, 1)
    decimal.getcontext().prec = 80
    engine = {"pyiceberg": PyIceberg, "duckdb": DuckDB}[sys.argv[1]]()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(engine, request.pop("operation"))(request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
