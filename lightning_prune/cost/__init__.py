"""What a model costs: parameters, multiply-adds, file size, milliseconds; and a smaller model beside the dense one."""

from .compare import CostReport as CostReport
from .compare import compare as compare
from .cost import Cost as Cost
from .cost import LayerCost as LayerCost
from .cost import count as count
from .latency import latency as latency
