"""A pruned model in other formats: 2:4 for sparse tensor cores, ONNX, and ONNX with weights of 8 bits."""

from .int8 import to_int8 as to_int8
from .int8_result import Int8Export as Int8Export
from .int8_result import Int8Weight as Int8Weight
from .onnx import to_onnx as to_onnx
from .semi_structured import LayerExport as LayerExport
from .semi_structured import SemiStructured as SemiStructured
from .semi_structured import check_gpu as check_gpu
from .semi_structured import holds_two_of_four as holds_two_of_four
from .semi_structured import to_semi_structured as to_semi_structured
from .stored import load_semi_structured as load_semi_structured
from .stored import save_semi_structured as save_semi_structured
