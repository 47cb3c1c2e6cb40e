"""Packages that are also functions of the API: `qnas.search(...)` calls what `qnas.api` has of that name."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package whose call is the function of its name in `qnas.api`."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call it."""
        return getattr(import_module("qnas.api"), self.__name__.rpartition(".")[2])(*arguments, **named)


def make_callable(package: str) -> None:
    """Let the package that is being imported be called."""
    sys.modules[package].__class__ = CallablePackage
