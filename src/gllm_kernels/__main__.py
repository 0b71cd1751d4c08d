"""`python -m gllm_kernels` is the command `gllm-kernels`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
