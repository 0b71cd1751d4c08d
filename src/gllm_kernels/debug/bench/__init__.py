"""The bench: products and operators, ours and peers' in turn, checked before they are timed.

    settings -> cases -> candidates -> checked against a reference -> times -> rows -> table, JSON
"""

from .cases import Case, Settings, cases_of
from .plot import check_plot, roofline
from .report import Table, as_json
from .rows import Bench, Row

__all__ = ["Bench", "Case", "Row", "Settings", "Table", "as_json", "cases_of", "check_plot",
           "roofline"]
