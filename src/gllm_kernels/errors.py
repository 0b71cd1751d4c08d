"""Every error this package raises on purpose. A message says what, where, and what to do next."""


class GllmError(Exception):
    """Base of all errors raised by gllm_kernels."""


class LiftError(GllmError):
    """A compiled function cannot be expressed as a trace."""


class UnsupportedOpError(GllmError):
    """An operator, type or instruction set that does not exist here."""


class CompileError(GllmError):
    """A graph or a trace cannot be compiled."""


class FormatError(GllmError):
    """A file does not hold what it claims; the message carries file and offset."""


class ShapeError(GllmError, ValueError):
    """An argument has the wrong shape, dtype, stride or value; the message names the argument."""


class MemoryPolicyError(GllmError):
    """The operating system refuses executable memory; the message names the policy."""


class ConfigError(GllmError, ValueError):
    """A setting has a value it cannot have; the message names the variable and the choices."""
