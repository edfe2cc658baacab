"""Rows for every table of a schema, made up from what the catalogue says of its columns.

Rule: foreign keys and triggers are off while rows are made, checks are not: values of the columns in a check that
refuses a row are tried one combination after the other until it accepts. What no combination satisfies is named, so
that whoever wrote the check adds a value for its column to VALUES.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

ROWS = 2
COMBINATIONS = 3000
# Literals that are tried for a type of the catalogue, the first one first; {n} is the number of the row.
TYPES = {
    "text": ("'text-{n}'", "''", "lpad('{n}', 64, '0')", "'0198a1b2-c3d4-7000-8000-00000000000{n}'"),
    "uuid": ("'0198a1b2-c3d4-7000-8000-00000000000{n}'",),
    "integer": ("{n}", "0", "1", "2", "100"),
    "smallint": ("{n}", "0", "1", "2"),
    "bigint": ("{n}", "0", "1", "2"),
    "double precision": ("0.5 / {n}", "0", "1", "2"),
    "real": ("0.5 / {n}", "0", "1", "2"),
    "numeric": ("{n}", "0"),
    "boolean": ("true", "false"),
    "timestamp with time zone": ("now() + {n} * interval '1 minute'", "now() - interval '1 day'"),
    "interval": ("interval '{n} seconds'",),
    "date": ("current_date + {n}",),
    "bytea": (r"'\x0{n}'", r"decode(repeat('0{n}', 32), 'hex')"),
    "jsonb": ("'{{}}'", "'[]'", "'[1]'"),
    "oid": ("{n}",),
}
# Values for columns whose checks ask for more: schema.table.column → literals.
VALUES: dict[str, tuple[str, ...]] = {}

TABLES = """
SELECT c.oid, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'migrations' ORDER BY 2
"""
COLUMNS = """
SELECT attname AS name, attnum AS number, format_type(atttypid, NULL) AS type, attnotnull AS required
FROM pg_attribute WHERE attrelid = :table AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
ORDER BY attnum
"""
CHECKS = """
SELECT conname AS name, conkey AS columns, pg_get_constraintdef(oid) AS definition
FROM pg_constraint WHERE conrelid = :table AND contype = 'c'
"""


@dataclass
class Table:
    """One table: its columns with the literals that may stand in them, and the columns of each check."""

    name: str
    candidates: dict[str, list[str]] = field(default_factory=dict)
    checks: dict[str, list[str]] = field(default_factory=dict)

    def statement(self, chosen: dict[str, str], row: int) -> str:
        """The insertion of one row."""
        values = ", ".join(literal.format(n=row) for literal in chosen.values())
        return f"INSERT INTO {self.name} ({', '.join(chosen)}) OVERRIDING SYSTEM VALUE VALUES ({values})"  # noqa: S608


def fill(connection: Connection, schema: str) -> dict[str, int]:
    """Puts rows into every table of a schema that a revision left empty; returns how many each has.

    Raises AssertionError naming a table.
    """
    connection.execute(text("SET LOCAL session_replication_role = replica"))
    for table in tables(connection, schema):
        seeded = connection.scalar(text(f"SELECT EXISTS (SELECT FROM {table.name})"))  # noqa: S608
        for row in range(1, ROWS + 1):
            if not seeded:
                _insert(connection, table, row)
    connection.execute(text("SET LOCAL session_replication_role = DEFAULT"))
    return counts(connection, schema)


def counts(connection: Connection, schema: str) -> dict[str, int]:
    """How many rows each table has."""
    found = connection.execute(text(TABLES), {"schema": schema}).all()
    return {row.name: connection.scalar(text(f'SELECT count(*) FROM {schema}."{row.name}"')) for row in found}  # noqa: S608


def tables(connection: Connection, schema: str) -> list[Table]:
    """The tables of a schema as the catalogue describes them."""
    found = []
    for oid, name in connection.execute(text(TABLES), {"schema": schema}).all():
        table = Table(f'{schema}."{name}"')
        columns = connection.execute(text(COLUMNS), {"table": oid}).all()
        names = {column.number: column.name for column in columns}
        checks = connection.execute(text(CHECKS), {"table": oid}).all()
        for column in columns:
            literals = [*VALUES.get(f"{schema}.{name}.{column.name}", ()), *_named(checks, column.number)]
            literals += _of_type(column.type)
            table.candidates[f'"{column.name}"'] = literals if column.required else [*literals, "NULL"]
        for check in checks:
            table.checks[check.name] = [f'"{names[number]}"' for number in check.columns or () if number in names]
        found.append(table)
    return found


def _named(checks: list[object], number: int) -> list[str]:
    """The texts that a check names for a column of its own: state IN ('a', 'b')."""
    found: list[str] = []
    for check in checks:
        if list(check.columns or ()) == [number]:  # type: ignore[attr-defined]
            found += [f"'{word}'" for word in re.findall(r"'([a-z_A-Z]+)'", check.definition)]  # type: ignore[attr-defined]
    return found


def _of_type(name: str) -> list[str]:
    plain = name.removesuffix("[]")
    if plain not in TYPES:
        raise AssertionError(f"no value is known for the type {name}: add it to TYPES")
    if plain == name:
        return list(TYPES[plain])
    return [f"ARRAY[{TYPES[plain][0]}]::{name}", f"'{{{{}}}}'::{name}"]


def _insert(connection: Connection, table: Table, row: int) -> None:
    chosen = {column: literals[0] for column, literals in table.candidates.items()}
    for _ in range(len(table.checks) + 1):
        refused = _try(connection, table, chosen, row)
        if not refused:
            return
        columns = table.checks.get(refused, [])
        # Which columns a check is about is all that is known of it, so every combination of theirs is tried.
        for values in itertools.islice(itertools.product(*(table.candidates[one] for one in columns)), COMBINATIONS):
            attempt = chosen | dict(zip(columns, values, strict=True))
            other = _try(connection, table, attempt, row)
            if not other:
                return
            if other != refused:
                chosen = attempt
                break
        else:
            raise AssertionError(f"{table.name}: nothing satisfies {refused}: add values of {columns} to VALUES")
    raise AssertionError(f"{table.name}: its checks cannot be satisfied together: add values to VALUES")


def _try(connection: Connection, table: Table, chosen: dict[str, str], row: int) -> str:
    """The check that refuses the row; empty when it is in. Raises AssertionError for any other refusal."""
    point = connection.begin_nested()
    try:
        connection.exec_driver_sql(table.statement(chosen, row))
    except DBAPIError as error:
        point.rollback()
        name = str(getattr(getattr(error.orig, "__cause__", None), "constraint_name", "") or "")
        if name in table.checks:
            return name
        raise AssertionError(f"{table.name} takes no row: {error.orig}") from error
    point.commit()
    return ""
