"""A name for everything that a lift depends on, so that a stored trace can be proved current."""

from __future__ import annotations

import hashlib

from iced_x86 import FlowControl, Instruction

from .elf import Image
from .program import Program
from .signature import Signature
from .store import LIFTER_VERSION

CONSTANT = 16  # bytes: the widest constant that scalar code loads


def content_key(program: Program, image: Image, signature: Signature) -> str:
    """SHA-256 over the code with addresses replaced by what stands there."""
    digest = hashlib.sha256(f"{LIFTER_VERSION} {signature}".encode())
    for instruction in program.instructions:
        digest.update(_content(instruction, program.entry, image))
    return digest.hexdigest()


def _content(i: Instruction, entry: int, image: Image) -> bytes:
    """The bytes of one instruction, position-independent."""
    code = image.read(i.ip, i.len)
    place = (i.ip - entry).to_bytes(8, "little", signed=True)
    if i.is_ip_rel_memory_operand:
        target = i.ip_rel_memory_address
        constant = image.constant(target, CONSTANT) or image.constant(target, 4)
        name = image.slot(target)
        return place + code[:-4] + (constant or (name or "?").encode())
    outward = (FlowControl.CALL, FlowControl.UNCONDITIONAL_BRANCH)
    name = image.callee(i.near_branch_target) if i.flow_control in outward else None
    return place + (code[:-4] + name.encode() if name else code)
