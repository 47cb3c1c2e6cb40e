"""Devices by name: `cpu`, `ort:XNNPACK`, `openvino:GPU`, `litert:xnnpack`, `ssh:HOST/cpu`, `adb:ID/cpu`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from qnas.errors import UsageError
from qnas.runtimes.runtime import Device
from qnas.runtimes.table import DEFAULTS, DEVICES

TRANSPORTS = ("ssh", "adb")
FORMS = ", ".join([*(each.form for each in DEVICES.values()), "ssh:HOST/DEVICE", "adb:SERIAL/DEVICE"])


@dataclass(frozen=True)
class DeviceName:
    """`kind:argument`, on another machine where `transport` (ssh, adb) is not empty."""

    kind: str
    argument: str = ""
    transport: str = ""
    machine: str = ""

    def __str__(self) -> str:
        local = f"{self.kind}:{self.argument}" if self.argument else self.kind
        return f"{self.transport}:{self.machine}/{local}" if self.transport else local

    @property
    def device(self) -> Device:
        """What it is."""
        return DEVICES[self.kind]

    @property
    def here(self) -> DeviceName:
        """The device as its own machine calls it."""
        return replace(self, transport="", machine="")


def parse_device(text: str) -> DeviceName:
    """Read a name; UsageError when it is none."""
    transport, _, rest = text.partition(":")
    if transport in TRANSPORTS:
        machine, slash, device = rest.partition("/")
        if not machine or machine.startswith("-") or not slash:  # ssh would take -o... for an option
            raise UsageError(f"--device {text}: name machine and device, as {transport}:HOST/cpu")
        inner = parse_device(device)
        if inner.transport:
            raise UsageError(f"--device {text}: one machine at a time")
        return replace(inner, transport=transport, machine=machine)
    kind, _, argument = text.partition(":")
    if kind not in DEVICES or not DEVICES[kind].takes(argument):
        raise UsageError(f"there is no device {text!r}: there are {FORMS}")
    return DeviceName(kind, argument)


def default_device(model: Path) -> DeviceName:
    """The one that runs every model of this suffix here."""
    return parse_device(DEFAULTS.get(model.suffix.lower(), "cpu"))


def listing() -> list[tuple[str, str]]:
    """Every device of this machine with why it is not there, "" when it is."""
    rows = []
    for kind, device in DEVICES.items():
        for argument in device.arguments():
            rows.append((str(DeviceName(kind, argument)), device.missing(argument) or ""))
    return rows
