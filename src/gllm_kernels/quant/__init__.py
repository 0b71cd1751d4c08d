"""Weight formats: what the machine code of a block decoder says about the bits of a block."""
