"""What a model costs: parameters, multiply-adds, file size, milliseconds; and a smaller model beside the dense one."""

from .compare import CostReport as CostReport
from .compare import compare as compare
from .cost import Cost as Cost
from .cost import LayerCost as LayerCost
from .cost import count as count
from .latency import latency as latency
from .latency_table import LatencyTable as LatencyTable
from .layer_times import measure_latency as measure_latency
