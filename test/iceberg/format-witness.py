"""
Answers questions with pyiceberg, for whoever writes a line of JSON to standard input: {"command": …, "question": …} is
answered with {"answer": …} or {"error": …}.

Values travel as text that both sides write alike: integers, dates (days), times and timestamps (microseconds) in decimal,
decimals with their scale, bytes in hexadecimal, floats as their 64 bits in hexadecimal.
"""

import json
import struct
import sys
import traceback
import uuid
from decimal import Decimal

from pyiceberg.conversions import from_bytes, to_bytes
from pyiceberg.transforms import parse_transform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    NestedField,
    StringType,
    UUIDType,
)


def type_of(text):
    return NestedField.model_validate({"id": 1, "name": "x", "required": False, "type": text}).field_type


def parse(kind, text):
    if text is None:
        return None
    if isinstance(kind, BooleanType):
        return text == "true"
    if isinstance(kind, (FloatType, DoubleType)):
        return struct.unpack(">d", bytes.fromhex(text))[0]
    if isinstance(kind, DecimalType):
        return Decimal(text)
    if isinstance(kind, StringType):
        return text
    if isinstance(kind, UUIDType):
        return uuid.UUID(text)
    if isinstance(kind, (BinaryType, FixedType)):
        return bytes.fromhex(text)
    return int(text)


def show(kind, value):
    if value is None:
        return None
    if isinstance(kind, BooleanType):
        return "true" if value else "false"
    if isinstance(kind, (FloatType, DoubleType)):
        return struct.pack(">d", value).hex()
    if isinstance(kind, UUIDType):
        return str(value if isinstance(value, uuid.UUID) else uuid.UUID(bytes=value))
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value)


def transforms(questions):
    """[{type, transform, value}] -> [text]"""
    answers = []
    for question in questions:
        kind = type_of(question["type"])
        transform = parse_transform(question["transform"])
        result = transform.transform(kind)(parse(kind, question["value"]))
        answers.append(show(transform.result_type(kind), result))
    return answers


def single_values(questions):
    """[{type, value, bytes}] -> [{bytes, value}]: the value's bytes, and the value of the given bytes."""
    answers = []
    for question in questions:
        kind = type_of(question["type"])
        answers.append(
            {
                "bytes": to_bytes(kind, parse(kind, question["value"])).hex(),
                "value": show(kind, from_bytes(kind, bytes.fromhex(question["bytes"]))),
            }
        )
    return answers


def read_table(question):
    """{metadata} -> its schema, specs, rows and files as pyiceberg has them."""
    from pyiceberg.table import StaticTable

    table = StaticTable.from_metadata(question["metadata"])
    schema = table.schema()
    kinds = {field.name: field.field_type for field in schema.fields}
    rows = []
    if question.get("rows", True):
        for row in table.scan().to_arrow().to_pylist():
            rows.append({name: show_arrow(kinds[name], value) for name, value in row.items()})
    files = []
    for task in table.scan().plan_files():
        files.append(
            {
                **show_file(table, task.file),
                "deletes": sorted(each.file_path for each in task.delete_files),
            }
        )
    manifests = []
    snapshot = table.current_snapshot()
    if snapshot is not None:
        for manifest in snapshot.manifests(table.io):
            manifests.append(
                {
                    "path": manifest.manifest_path,
                    "length": manifest.manifest_length,
                    "content": int(manifest.content),
                    "spec": manifest.partition_spec_id,
                    "sequence": manifest.sequence_number,
                    "min_sequence": manifest.min_sequence_number,
                    "snapshot": str(manifest.added_snapshot_id),
                    "counts": [
                        manifest.added_files_count,
                        manifest.existing_files_count,
                        manifest.deleted_files_count,
                        manifest.added_rows_count,
                        manifest.existing_rows_count,
                        manifest.deleted_rows_count,
                    ],
                    "partitions": [
                        {
                            "contains_null": each.contains_null,
                            "contains_nan": each.contains_nan,
                            "lower": each.lower_bound.hex() if each.lower_bound is not None else None,
                            "upper": each.upper_bound.hex() if each.upper_bound is not None else None,
                        }
                        for each in manifest.partitions or []
                    ],
                    "entries": [
                        {
                            "status": int(entry.status),
                            "snapshot": str(entry.snapshot_id),
                            "sequence": entry.sequence_number,
                            "file_sequence": entry.file_sequence_number,
                            **show_file(table, entry.data_file),
                        }
                        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
                    ],
                }
            )
    return {
        "schema": json.loads(schema.model_dump_json()),
        "summary": dict(snapshot.summary.additional_properties, operation=snapshot.summary.operation.value)
        if snapshot is not None
        else None,
        "rows": rows,
        "files": files,
        "manifests": manifests,
    }


def show_arrow(kind, value):
    """A cell of an Arrow table."""
    import datetime

    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            value = value.replace(tzinfo=datetime.timezone.utc)
        delta = value - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        return str((delta.days * 86400 + delta.seconds) * 1000000 + delta.microseconds)
    if isinstance(value, datetime.date):
        return str((value - datetime.date(1970, 1, 1)).days)
    if isinstance(value, datetime.time):
        return str(((value.hour * 60 + value.minute) * 60 + value.second) * 1000000 + value.microsecond)
    if value is None or isinstance(value, (list, dict)):
        return value
    return show(kind, value)


def show_file(table, file):
    schema = table.schema()
    spec = table.specs()[file.spec_id]
    fields = spec.partition_type(schema).fields
    def bounds(values):
        return {str(key): value.hex() for key, value in (values or {}).items()}

    return {
        "path": file.file_path,
        "content": int(file.content),
        "format": file.file_format.value,
        "partition": [show(field.field_type, file.partition[index]) for index, field in enumerate(fields)],
        "records": file.record_count,
        "size": file.file_size_in_bytes,
        "column_sizes": {str(key): value for key, value in (file.column_sizes or {}).items()},
        "value_counts": {str(key): value for key, value in (file.value_counts or {}).items()},
        "null_value_counts": {str(key): value for key, value in (file.null_value_counts or {}).items()},
        "nan_value_counts": {str(key): value for key, value in (file.nan_value_counts or {}).items()},
        "lower_bounds": bounds(file.lower_bounds),
        "upper_bounds": bounds(file.upper_bounds),
        "split_offsets": list(file.split_offsets or []),
        "sort_order_id": file.sort_order_id,
    }


def write_table(question):
    """
    {folder, schema, partition, properties, metadata, steps} -> {metadata}: makes a table with the catalog in the folder, or
    takes over the one of the given metadata, and goes through the steps: {append: rows}, {delete: filter},
    {overwrite: rows}, {add_files: [columns]}, {add_column: [name, type]}, {rename: [old, new]}, {promote: [name, type]}, {drop: name},
    {partition: [source, transform, name]}.
    """
    import pyarrow
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.partitioning import PartitionField, PartitionSpec
    from pyiceberg.schema import Schema

    folder = question["folder"]
    catalog = SqlCatalog("test", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
    catalog.create_namespace_if_not_exists("db")
    identifier = ("db", question.get("name", "t"))
    if question.get("metadata"):
        if catalog.table_exists(identifier):
            catalog.drop_table(identifier)
        table = catalog.register_table(identifier, question["metadata"])
    else:
        fields = [PartitionField(**each) for each in question.get("partition", [])]
        table = catalog.create_table(
            identifier,
            schema=Schema.model_validate(question["schema"]),
            partition_spec=PartitionSpec(*fields, spec_id=0),
            properties=question.get("properties", {}),
        )
    for step in question["steps"]:
        ((name, value),) = step.items()
        if name in ("append", "overwrite"):
            schema = table.schema()
            columns = {
                field.name: [parse(field.field_type, row.get(field.name)) for row in value] for field in schema.fields
            }
            rows = pyarrow.Table.from_pydict(
                {key: arrow_cells(each) for key, each in columns.items()}, schema=schema.as_arrow()
            )
            getattr(table, name)(rows)
        elif name == "delete":
            table.delete(value)
        elif name == "add_files":
            import pyarrow.parquet

            # A file of somebody who knows no Iceberg: its columns have names only.
            paths = []
            for index, columns in enumerate(value):
                path = f"{folder}/added-{index}.parquet"
                pyarrow.parquet.write_table(pyarrow.Table.from_pydict(columns), path)
                paths.append(f"file://{path}")
            table.add_files(paths)
        elif name == "partition":
            with table.update_spec() as update:
                update.add_field(value[0], parse_transform(value[1]), value[2])
        else:
            with table.update_schema() as update:
                if name == "add_column":
                    update.add_column(value[0], type_of(value[1]))
                elif name == "rename":
                    update.rename_column(value[0], value[1])
                elif name == "promote":
                    update.update_column(value[0], field_type=type_of(value[1]))
                else:
                    update.delete_column(value)
    return {"metadata": table.metadata_location}


def arrow_cells(values):
    return [each.bytes if isinstance(each, uuid.UUID) else each for each in values]


def footer_metrics(question):
    """{metadata} -> bounds and counts that pyiceberg takes from each data file's footer, by path."""
    import pyarrow.parquet
    from pyiceberg.io.pyarrow import (
        compute_statistics_plan,
        data_file_statistics_from_parquet_metadata,
        parquet_path_to_id_mapping,
    )
    from pyiceberg.table import StaticTable

    table = StaticTable.from_metadata(question["metadata"])
    schema = table.schema()
    answers = {}
    for task in table.scan().plan_files():
        footer = pyarrow.parquet.read_metadata(task.file.file_path.removeprefix("file://"))
        found = data_file_statistics_from_parquet_metadata(
            footer,
            stats_columns=compute_statistics_plan(schema, table.properties),
            parquet_column_mapping=parquet_path_to_id_mapping(schema),
        ).to_serialized_dict()
        answers[task.file.file_path] = {
            "records": found["record_count"],
            "split_offsets": found["split_offsets"],
            **{name: {str(k): v for k, v in found[name].items()} for name in COUNTS},
            **{name: {str(k): v.hex() for k, v in found[name].items()} for name in BOUNDS},
        }
    return answers


COUNTS = ("column_sizes", "value_counts", "null_value_counts", "nan_value_counts")
BOUNDS = ("lower_bounds", "upper_bounds")


def compress(question):
    """{codec, bytes} -> bytes, in hexadecimal both."""
    import pyarrow

    return pyarrow.compress(bytes.fromhex(question["bytes"]), codec=question["codec"], asbytes=True).hex()


def apply_updates(question):
    """{metadata, updates}, both JSON in text -> text of the metadata's JSON after the updates."""
    from pyiceberg.table.metadata import TableMetadataUtil
    from pyiceberg.table.update import TableUpdate, update_table_metadata
    from pydantic import TypeAdapter

    updates = [TypeAdapter(TableUpdate).validate_python(each) for each in json.loads(question["updates"])]
    base = TableMetadataUtil.parse_raw(question["metadata"])
    return update_table_metadata(base, tuple(updates)).model_dump_json()


def main():
    answers = sys.stdout
    sys.stdout = sys.stderr
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": globals()[request["command"]](request["question"])}
        except Exception as failure:
            traceback.print_exc()
            answer = {"error": f"{type(failure).__name__}: {failure}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
