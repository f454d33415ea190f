"""Statements compiled once per dialect to SQL, positional arguments and rows.

SQLAlchemy's bind and result processors apply here, looked up once; columns that need none cost
nothing. What a statement costs beyond its driver is a dictionary lookup, an `itemgetter` and the
call of `into` per row.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Insert, Update
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import Float

from storage.database import Bound, Statement

Parameters = Mapping[str, Any]
Processor = Callable[[Any], Any]
Prepared = tuple[str, Sequence[Any]]
"""SQL and its positional arguments, as the driver takes them."""

_NOT_FOUND: Any = object()


class Compiled:
    """One statement in one dialect."""

    __slots__ = (
        "_compiler",
        "_constants",
        "_decoder",
        "_dialect",
        "_expanded",
        "_expanding",
        "_getter",
        "_into",
        "_names",
        "_optional",
        "_processors",
        "returns_rows",
        "sql",
    )

    def __init__(
        self,
        statement: Statement,
        construct: Any,
        dialect: Dialect,
        column_keys: list[str] | None,
    ) -> None:
        compiler = construct.compile(dialect=dialect, column_keys=column_keys)
        if not isinstance(compiler, SQLCompiler):
            raise TypeError(f"not a statement that rows go through: {construct!r}")
        self._compiler = compiler
        self._dialect = dialect
        self._into = statement.into
        self._decoder: Callable[[list[Any]], list[Any]] | None = None
        self.sql = compiler.string
        self.returns_rows = bool(compiler._result_columns)

        order = list(compiler.positiontup or ())
        binds = compiler.binds
        self._expanding = tuple(
            dict.fromkeys(binds[name].key for name in order if binds[name].expanding)
        )
        self._expanded: dict[tuple[int, ...], tuple[str, tuple[tuple[str, int, Any], ...]]] = {}
        # A literal of the construct and a default of a bindparam are both values known now;
        # only the latter may be given by the caller.
        self._constants: dict[str, Any] = {
            binds[name].key: binds[name].effective_value
            for name in order
            if not binds[name].required
        }
        self._optional = any(not bind.required and not bind.unique for bind in binds.values())
        self._names = frozenset(binds[name].key for name in order if binds[name].required)
        processors: Mapping[str, Any] = compiler._bind_processors
        self._processors = tuple(
            (at, processors[name]) for at, name in enumerate(order) if name in processors
        )
        self._getter = _tuple_getter([binds[name].key for name in order])

    @property
    def expands(self) -> bool:
        """Whether the SQL depends on the length of a list parameter."""
        return bool(self._expanding)

    def arguments(self, parameters: Parameters) -> Prepared:
        """SQL and positional arguments for one set of parameters.

        Raises TypeError when a parameter is missing or unknown.
        """
        if len(parameters) != len(self._names) and not self._known(parameters):
            raise self._mismatch(parameters)
        if self._constants:
            parameters = {**self._constants, **parameters}
        try:
            if self._expanding:
                return self._expand(parameters)
            values = self._getter(parameters)
        except KeyError:
            raise self._mismatch(parameters) from None
        if self._processors:
            changed = list(values)
            for at, process in self._processors:
                changed[at] = process(changed[at])
            return self.sql, changed
        return self.sql, values

    def rows(self, fetched: list[Any], types: Callable[[], Sequence[Any]]) -> list[Any]:
        """Fetched tuples as the statement's records. `types` gives the driver's column types,
        which some result processors depend on; it is called once per statement."""
        if not fetched:
            return fetched
        decoder = self._decoder
        if decoder is None:
            decoder = self._decoder = self._make_decoder(types())
        return decoder(fetched)

    def _make_decoder(self, types: Sequence[Any]) -> Callable[[list[Any]], list[Any]]:
        columns = self._compiler._result_columns
        processors: list[tuple[int, Processor]] = []
        if len(columns) == len(types):
            for at, (column, driver_type) in enumerate(zip(columns, types, strict=True)):
                kind = column.type
                if isinstance(kind, Float) and not kind.asdecimal:
                    continue  # both drivers give a float already
                process = kind._cached_result_processor(self._dialect, driver_type)
                if process is not None:
                    processors.append((at, process))
        into = self._into
        if not processors:
            if into is None:
                return _unchanged
            return lambda fetched: [into(*row) for row in fetched]

        def decode(fetched: list[Any]) -> list[Any]:
            records = []
            for row in fetched:
                values = list(row)
                for at, process in processors:
                    value = values[at]
                    if value is not None:
                        values[at] = process(value)
                records.append(tuple(values) if into is None else into(*values))
            return records

        return decode

    def _known(self, parameters: Parameters) -> bool:
        given = parameters.keys()
        if not self._optional:
            return given == self._names
        return self._names <= given and given <= self._names | self._constants.keys()

    def _mismatch(self, parameters: Parameters) -> TypeError:
        missing = sorted(self._names - parameters.keys())
        unknown = sorted(parameters.keys() - self._names - self._constants.keys())
        return TypeError(f"parameters missing: {missing}, unknown: {unknown}, in: {self.sql}")

    def _expand(self, parameters: Parameters) -> Prepared:
        """SQL with `IN (…)` lists of the lengths at hand, rendered once per combination."""
        lengths = tuple(len(parameters[key]) for key in self._expanding)
        rendered = self._expanded.get(lengths)
        if rendered is None:
            rendered = self._render(parameters)
            if len(self._expanded) < 256:
                self._expanded[lengths] = rendered
        sql, sources = rendered
        values = []
        for key, at, process in sources:
            value = parameters[key] if at < 0 else parameters[key][at]
            values.append(value if process is None else process(value))
        return sql, values

    def _render(self, parameters: Parameters) -> tuple[str, tuple[tuple[str, int, Any], ...]]:
        state = self._compiler.construct_expanded_state(dict(parameters))
        origin = {
            part: (name, at)
            for name, parts in state.parameter_expansion.items()
            for at, part in enumerate(parts)
        }
        binds = self._compiler.binds
        processors = self._compiler._bind_processors
        sources = []
        for name in state.positiontup or ():
            source, at = origin.get(name, (name, -1))
            process = state.processors.get(name) or processors.get(source)
            sources.append((binds[source].key, at, process))
        return state.statement, tuple(sources)


def compiled(bound: Bound, dialect: Dialect, parameters: Parameters) -> Compiled:
    """The compiled form of a bound statement, made on first use.

    An INSERT or UPDATE that states no values writes the columns named by its parameters, so it is
    compiled once per set of names.
    """
    statement = bound.statement
    found = statement.compiled.get(dialect.name, _NOT_FOUND)
    if found is _NOT_FOUND:
        construct = statement.construct(dialect.name)
        found = {} if _takes_columns(construct) else Compiled(statement, construct, dialect, None)
        statement.compiled[dialect.name] = found
    if type(found) is Compiled:
        return found
    names = tuple(parameters)
    by_names: Compiled | None = found.get(names)
    if by_names is None:
        by_names = Compiled(statement, statement.construct(dialect.name), dialect, list(names))
        found[names] = by_names
    return by_names


def _takes_columns(construct: Any) -> bool:
    if not isinstance(construct, Insert | Update):
        return False
    return not (
        construct._values
        or construct._multi_values
        or getattr(construct, "_ordered_values", None)
        or getattr(construct, "_select_names", None)
    )


def _tuple_getter(keys: list[str]) -> Callable[[Parameters], tuple[Any, ...]]:
    if not keys:
        return lambda parameters: ()
    if len(keys) == 1:
        (key,) = keys
        return lambda parameters: (parameters[key],)
    return itemgetter(*keys)


def _unchanged(fetched: list[Any]) -> list[Any]:
    return fetched
