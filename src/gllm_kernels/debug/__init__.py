"""What a person looks at: plans, machine code, loops, every stage of one operator, and speed."""

from .loops import loop_table
from .model import disasm, loop_report, plan
from .page import pipeline_page

__all__ = ["disasm", "loop_report", "loop_table", "pipeline_page", "plan"]
