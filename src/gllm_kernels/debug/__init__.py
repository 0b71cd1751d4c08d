"""What a person looks at: plans, machine code, and every stage of one operator."""

from .model import disasm, plan
from .page import pipeline_page

__all__ = ["disasm", "pipeline_page", "plan"]
