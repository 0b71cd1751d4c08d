"""The description of a format by its name: of the package, or brought by a user."""

from __future__ import annotations

from ..errors import FormatError
from ..lift.signature import parse
from ..scalar.formats import FORMATS, PREFIX, WeightFormat
from .desc import QuantDesc
from .store import stored_desc

_brought: dict[str, QuantDesc] = {}
_alive: list[object] = []  # libraries behind decoders


def description(name: str) -> QuantDesc:
    """What kernels know of a format."""
    FORMATS.lookup(name)
    return _brought[name] if name in _brought else stored_desc(name)


def register(source: object, declaration: str, size: int) -> WeightFormat:
    """Describe the decoder and add its format; `decode_w3` decodes W3."""
    from ..lift.lifter import subject_of
    from .lift import lift_decoder

    signature = parse(declaration)
    if not signature.symbol.startswith(PREFIX):
        raise FormatError(f"{signature.symbol}: the name of a decoder is {PREFIX}<format>")
    desc = lift_decoder(source, declaration, size)
    name = signature.symbol.removeprefix(PREFIX).upper()
    if _brought.get(name, desc) != desc:
        raise FormatError(f"weight format {name!r} is there already and is decoded in another way; "
                          "give the decoder another name")
    address, owner = subject_of(source, signature).address()
    row = FORMATS.register(WeightFormat(name, len(desc.codes), size), address)
    _alive.append(owner)
    _brought[name] = desc
    return row
