"""Registries: the built-in members of a kind, and those that installed packages add by entry points."""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@cache
def resolve(path: str) -> Any:
    """Import and return what a path such as `package.module:name` names, so that choices can be listed without it."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


class Registry(Mapping[str, T], Generic[T]):
    """Members by name: the built-in ones first, then those of the entry-point group `reprogramming_harness.<group>`.

    Entry points are loaded once in each process, at the first look-up that the built-in members do not answer. The
    driver and every worker therefore see the same members wherever the same packages are installed.

    A name becomes part of paths and of MLflow's names. `reserved` are names that mean something else there.
    """

    def __init__(self, group: str, members: Mapping[str, T], *, reserved: Collection[str] = ()) -> None:
        self.group = f"reprogramming_harness.{group}"
        self._members, self._reserved, self._is_complete = dict(members), reserved, False

    def __getitem__(self, name: str) -> T:
        """Return a member.

        Raises:
            KeyError: no built-in member and no installed package has this name.
            ValueError: an entry point cannot be loaded, or takes a name that is in use.
        """
        if name not in self._members:
            self._load()
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(tuple(self._members))

    def __len__(self) -> int:
        self._load()
        return len(self._members)

    def add(self, name: str, member: T) -> None:
        """Add a member to this process.

        Raises:
            ValueError: the name is in use, or is none.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{self.group}: {name!r} is no name; use lower-case letters, digits and _")
        if name in self._members or name in self._reserved:
            raise ValueError(f"{self.group}: the name {name!r} is in use; choose another")
        self._members[name] = member

    def remove(self, name: str) -> None:
        """Remove a member from this process, such as one that a test added."""
        del self._members[name]

    def _load(self) -> None:
        if self._is_complete:
            return
        built_in, self._is_complete = dict(self._members), True  # at once, since a package may look members up
        try:
            for point in entry_points(group=self.group):
                self.add(point.name, self._loaded(point))
        except ValueError:  # the next look-up fails as well
            self._members, self._is_complete = built_in, False
            raise

    def _loaded(self, point: EntryPoint) -> T:
        try:
            member: T = point.load()
        except Exception as error:
            raise ValueError(
                f"{self.group}: {point.name} = {point.value} cannot be loaded ({type(error).__name__}: {error}); "
                f"mend or uninstall the package {point.dist.name if point.dist else 'that declares it'}"
            ) from error
        return member
