"""The result log: one JSON object a line, in segments; docs/results-format.md. A leaf.

`ResultLog` is a writer's side, `ResultIndex` the readers'.
"""

from gpu_worker.durable import DamagedLine
from gpu_worker.results.catalog import Entry, Totals
from gpu_worker.results.index import ResultIndex
from gpu_worker.results.log import LineTooLong, ResultLog

__all__ = ["DamagedLine", "Entry", "LineTooLong", "ResultIndex", "ResultLog", "Totals"]
