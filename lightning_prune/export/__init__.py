"""A pruned model in other formats: small files, `torch.export`, ONNX, 8 bits, 2:4 for sparse tensor cores, CSR."""

from .compact import save_compact as save_compact
from .compact_reading import load_compact as load_compact
from .compact_reading import load_safetensors as load_safetensors
from .compact_report import Compact as Compact
from .compact_report import CompactTensor as CompactTensor
from .csr import to_csr as to_csr
from .csr_file import load_csr as load_csr
from .csr_file import save_csr as save_csr
from .csr_linear import CsrLinear as CsrLinear
from .csr_report import Csr as Csr
from .csr_report import CsrLayer as CsrLayer
from .exported_program import Exported as Exported
from .exported_program import to_exported_program as to_exported_program
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
