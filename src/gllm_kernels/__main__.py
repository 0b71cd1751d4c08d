"""`python -m gllm_kernels` is the command `gllm-kernels`."""

import sys


def main() -> int:
    """The exit status of the command; Ctrl-C counts as one from here on, the imports included."""
    try:
        from .cli.main import main as command

        return command()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
