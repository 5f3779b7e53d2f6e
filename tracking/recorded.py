"""Which records an outbox holds already, so that a resumed study can say everything again."""

from collections.abc import Iterable

from tracking.records import Record

_ENDING = ("end", "final", "artifact ")


class Recorded:
    """The names of the records of each run.

    Opening a run that has ended opens it again: its end, final figures and artifacts may then be recorded once
    more, its parameters and epochs may not.
    """

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def has(self, key: str, name: str) -> bool:
        """Tell whether a run has a record of this name."""
        return name in self._names.get(key, ())

    def new(self, records: Iterable[Record]) -> list[Record]:
        """Return the records that are not there yet. They count once they are noted."""
        after, new = Recorded(), []
        for record in records:
            after._names.setdefault(record.key, set(self._names.get(record.key, ())))
            if not after.has(record.key, record.name):
                after.note(record)
                new.append(record)
        return new

    def note(self, record: Record) -> None:
        """Count a record in."""
        names = self._names.setdefault(record.key, set())
        if record.op == "run":
            names -= {name for name in names if name.startswith(_ENDING)}
        if record.op == "end":
            names.discard("run")
        names.add(record.name)
