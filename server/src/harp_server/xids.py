"""What NVIDIA's driver reports as an Xid, and what it means for the device.

Numbers, names and what is to be done are from NVIDIA's Xid catalogue, of Ampere and newer devices
(docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html, read in November 2026); that 109 can
be brought about by a program, as can 13, 31, 43, 45 and 68, from NVIDIA's device plugin for
Kubernetes (internal/rm/health.go), which passes over these six. Where the catalogue leaves the
decision to registers that NVML does not tell, or says IGNORE, the device is asked instead: a reset
that is due, a row that is to be remapped and errors of its memory are found there (`nvml`).
"""

from __future__ import annotations

from enum import Enum


class Action(Enum):
    """What an Xid asks for."""

    PROGRAM = "programs"
    """The program that ran is over: it was its own fault, or the fault is confined to it."""

    ASK = "ask"
    """Nothing by itself; the device says whether something is due."""

    RESET = "reset the device while harp server is stopped (nvidia-smi --gpu-reset)"
    RESTART = "restart the machine"
    POWER = "connect the board's auxiliary power"

    @property
    def takes_out(self) -> bool:
        """Whether nothing may be granted on the device until a person has seen to it."""
        return self not in (Action.PROGRAM, Action.ASK)


_COPY_ENGINES = (39, 40, 41, 70, 71, 72, 75, 76, 77, 85, *range(126, 136))
_DECODERS = (68, 83, 84, 88, 89, 96, 97, 98)
_JPEG = (82, *range(99, 106))

XIDS: dict[int, tuple[str, Action]] = {
    8: ("the device stopped processing", Action.PROGRAM),
    11: ("invalid or corrupted push buffer", Action.PROGRAM),
    13: ("graphics engine exception", Action.PROGRAM),
    25: ("invalid or illegal push buffer", Action.PROGRAM),
    31: ("page fault", Action.PROGRAM),
    32: ("invalid or corrupted push buffer", Action.PROGRAM),
    37: ("firmware error of the driver", Action.ASK),
    38: ("firmware error of the driver", Action.ASK),
    **dict.fromkeys(_COPY_ENGINES, ("copy engine exception", Action.PROGRAM)),
    43: ("the device stopped processing for a program", Action.PROGRAM),
    44: ("fault during a context switch", Action.ASK),
    45: ("channels were removed after earlier errors", Action.PROGRAM),
    46: ("the device stopped processing", Action.RESET),
    48: ("uncorrectable (double bit) memory error", Action.RESET),
    54: ("the board's auxiliary power is not connected", Action.POWER),
    60: ("video processor exception", Action.PROGRAM),
    62: ("a microcontroller of the device has halted", Action.RESET),
    63: ("a row of memory is to be remapped", Action.ASK),
    64: ("remapping a row of memory has failed", Action.RESET),
    66: ("illegal access by the driver", Action.ASK),
    67: ("illegal access by the driver", Action.ASK),
    **dict.fromkeys(_DECODERS, ("video decoder exception", Action.PROGRAM)),
    69: ("graphics engine class error", Action.PROGRAM),
    74: ("NVLink error", Action.RESET),
    79: ("the device has fallen off the bus", Action.RESTART),
    80: ("corrupted data sent to the device", Action.PROGRAM),
    **dict.fromkeys(_JPEG, ("JPEG decoder exception", Action.PROGRAM)),
    86: ("optical flow accelerator exception", Action.PROGRAM),
    92: ("many corrected (single bit) memory errors", Action.ASK),
    93: ("the InfoROM is written too often", Action.ASK),
    94: ("memory error, contained to a program", Action.ASK),
    95: ("memory error, not contained", Action.RESET),
    106: ("test message of SMBPBI", Action.ASK),
    107: ("test message of SMBPBI", Action.ASK),
    109: ("context switch timeout", Action.PROGRAM),
    110: ("security fault", Action.RESET),
    119: ("the device's system processor (GSP) does not answer", Action.RESET),
    120: ("error of the device's system processor (GSP)", Action.RESET),
    121: ("error of the link between chips (C2C)", Action.ASK),
    136: ("training an NVLink has failed", Action.RESET),
    137: ("NVLink privilege error", Action.ASK),
    139: ("optical flow accelerator exception", Action.PROGRAM),
    140: ("unrecovered memory error", Action.RESET),
    141: ("error of CUDA's fast path", Action.ASK),
    143: ("the device could not be initialised", Action.RESET),
    **dict.fromkeys(range(144, 151), ("NVLink error", Action.ASK)),
    151: ("error when keys were rotated", Action.RESTART),
    154: ("another recovery action is needed", Action.ASK),
    155: ("NVLink error defined by software", Action.RESET),
    156: ("a resource of the device was retired", Action.RESET),
    157: ("a resource of the device could not be retired", Action.ASK),
    158: ("fatal timeout of the device", Action.RESET),
    159: ("error of the coherent interface (CHI)", Action.ASK),
    160: ("a memory channel was retired", Action.ASK),
    161: ("a memory channel could not be retired", Action.ASK),
    167: ("fatal PCIe timeout", Action.ASK),
    168: ("less memory than the device was made with", Action.ASK),
    169: ("a microcontroller of the device has halted", Action.ASK),
    171: ("uncorrectable error of DRAM", Action.ASK),
    172: ("uncorrectable error of SRAM", Action.ASK),
}
"""By number. What is not here asks the device too: a newer driver may report it."""


def xid(number: int) -> tuple[str, Action]:
    """What an Xid says, for people: `Xid 79: …`; and what it asks for."""
    text, action = XIDS.get(number, ("", Action.ASK))
    return (f"Xid {number}: {text}" if text else f"Xid {number}"), action
