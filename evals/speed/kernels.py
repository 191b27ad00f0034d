"""How fast the matrix products of one decode step are, route by route, and whether a row's result is its own.

One step of MusicGen-small: 24 layers of 1024 x 3072, 3 of 1024 x 1024, 1024 x 4096 and 4096 x 1024, then heads of
1024 x 8192, each with weights of its own as in the model, for 1 to 16 rows. Memory bandwidth is measured in the same
run: a step cannot be faster than its weights are read. ONNX Runtime takes part where `onnx` and `onnxruntime` are.

    python evals/speed/kernels.py [--threads 2] [--limit 5] [--layers 24] [--rows 1 2 4 8 16]

Cost: about 5 GB of memory and two minutes. Only a quiet machine gives valid numbers.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, parser, publish
from stretto_acoustic.settings import AcousticSettings
from stretto_shared.nn.lowbit import LowBitLinear, NativeKernel, load_native_kernel, quantise_int4, quantise_int8
from stretto_shared.nn.packed_linear import PackedLinear
from timing import bandwidth_gb_s, spread, take_turns

LAYER = ((1024, 3072), (1024, 1024), (1024, 1024), (1024, 1024), (1024, 4096), (4096, 1024))  # inputs, outputs
HEADS = (1024, 8192)
DEFAULT_ROUNDS = 5
GROUP = 32
SEED = 0

PROTOCOL = (
    "Milliseconds for all products of one decode step, median of the rounds with its 95 % interval; in a round every "
    "route runs once for each number of rows, after one run that does not count, so that caches hold what they hold "
    "when only this route runs. Rows are float32 and so are results, whatever a route computes with. `own row`: 16 "
    "random rows, one of them 40 times as large, give the same bytes each alone and in every batch measured, at first "
    "and at last place. Bandwidth: the best round of summing 1 GiB of float32."
)

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Route:
    """One way to all products of a step: makes a product from a weight [N, K]."""

    name: str
    bytes_per_weight: float
    make: Callable[[Tensor], Product]


def fp32(weight: Tensor) -> Product:
    """Torch's own linear layer."""
    return lambda x: nn.functional.linear(x, weight)


def bf16(weight: Tensor) -> Product:
    """Torch's own linear layer in bfloat16."""
    half = weight.bfloat16()
    return lambda x: nn.functional.linear(x.bfloat16(), half).float()


def packed(weight: Tensor) -> Product:
    """OneDNN with weights packed once."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    return PackedLinear(linear)


def torch_int8(weight: Tensor) -> Product:
    """Torch's weight-only int8."""
    matrix = quantise_int8(weight)
    values, scales = matrix.values, matrix.scales.bfloat16()
    return lambda x: torch.ops.aten._weight_int8pack_mm(x.bfloat16(), values, scales).float()


def torch_int4(weight: Tensor) -> Product:
    """Torch's weight-only int4, groups of 32."""
    groups = weight.view(weight.shape[0], -1, GROUP)
    scales = groups.abs().amax(2, keepdim=True) / 7
    values = ((groups / scales).round().clamp(-8, 7) + 8).view(weight.shape).to(torch.int32)
    ready = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values, 1)
    both = torch.cat([scales, torch.zeros_like(scales)], 2).transpose(0, 1).contiguous().bfloat16()
    return lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(x.bfloat16(), ready, GROUP, both).float()


def fbgemm(weight: Tensor) -> Product:
    """Torch's dynamic int8: one scale for the whole batch."""
    scale = float(weight.abs().max()) / 127
    ready = torch.ops.quantized.linear_prepack(torch.quantize_per_tensor(weight, scale, 0, torch.qint8), None)
    return lambda x: torch.ops.quantized.linear_dynamic(x, ready)


@functools.cache
def native() -> NativeKernel:
    """The native kernel, loaded once."""
    kernel = load_native_kernel(AcousticSettings().native_kernel_dir)
    if kernel is None:
        raise RuntimeError("this machine makes no native kernel: see the warning above")
    return kernel


def own_int8(weight: Tensor) -> Product:
    """Stretto's int8."""
    return LowBitLinear(quantise_int8(weight), native())


def own_int4(weight: Tensor) -> Product:
    """Stretto's int4."""
    return LowBitLinear(quantise_int4(weight), native())


ROUTES = (
    Route("torch fp32 linear", 4, fp32),
    Route("oneDNN packed fp32 (PackedLinear)", 4, packed),
    Route("torch bf16 linear", 2, bf16),
    Route("torch _weight_int8pack_mm", 1, torch_int8),
    Route("torch fbgemm dynamic int8", 1, fbgemm),
    Route("torch _weight_int4pack_mm_for_cpu", 0.5 + 4 / GROUP, torch_int4),
    Route("Stretto int8, VNNI", 1, own_int8),
    Route("Stretto int4, VNNI", 0.5 + 1 / GROUP, own_int4),
)


def shapes(num_layers: int) -> Iterator[tuple[int, int]]:
    """Inputs and outputs of every product of a step."""
    for _ in range(num_layers):
        yield from LAYER
    yield HEADS


def random_weights(num_layers: int) -> list[Tensor]:
    """A weight [N, K] for every product of a step, as large as trained ones."""
    generator = torch.Generator().manual_seed(SEED)
    return [torch.randn((n, k), generator=generator) / k**0.5 for k, n in shapes(num_layers)]


def onnx_step(weights: Sequence[Tensor]) -> Callable[[dict[int, Tensor]], Sequence[Any]] | None:
    """A step by ONNX Runtime's MatMulNBits (int4 in groups of 32, int8 activations); None where it is not installed."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper
    except ImportError:
        return None
    nodes, constants, outputs = [], [], []
    for at, weight in enumerate(weights):
        n, k = weight.shape
        groups = weight.view(n, -1, GROUP)
        scales = groups.abs().amax(2) / 7
        values = ((groups / scales[..., None]).round().clamp(-8, 7) + 8).to(torch.uint8)
        halves = (values[..., 0::2] | values[..., 1::2] << 4).numpy()
        constants.append(helper.make_tensor(f"w{at}", TensorProto.UINT8, halves.shape, halves.tobytes(), raw=True))
        constants.append(
            helper.make_tensor(f"s{at}", TensorProto.FLOAT, [scales.numel()], scales.numpy().tobytes(), raw=True)
        )
        attributes = {"K": k, "N": n, "bits": 4, "block_size": GROUP, "accuracy_level": 4}
        names = [f"x{k}", f"w{at}", f"s{at}"]
        nodes.append(helper.make_node("MatMulNBits", names, [f"y{at}"], domain="com.microsoft", **attributes))
        outputs.append(helper.make_tensor_value_info(f"y{at}", TensorProto.FLOAT, ["B", n]))
    inputs = [helper.make_tensor_value_info(f"x{k}", TensorProto.FLOAT, ["B", k]) for k in (1024, 4096)]
    graph = helper.make_graph(nodes, "step", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {f"x{k}": rows.numpy() for k, rows in x.items()})


def keeps_rows_apart(product: Product, inputs: int, batch_sizes: Sequence[int]) -> bool:
    """Whether each of 16 rows has the bytes it has alone, in every batch size, at first and at last place."""
    rows = torch.randn((16, inputs), generator=torch.Generator().manual_seed(SEED + 1))
    rows[5] *= 40
    alone = torch.cat([product(rows[at : at + 1].clone()) for at in range(16)])
    for size in batch_sizes:
        for shift in range(0, 16, 5):
            picks = (torch.arange(size) + shift) % 16
            for order in (picks, picks.flip(0)):
                if not torch.equal(product(rows[order].contiguous()), alone[order]):
                    return False
    return True


def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--layers", type=int, default=24, help="of the transformer")
    options.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="numbers of rows")
    args = options.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    rounds = args.limit or DEFAULT_ROUNDS
    num_weights = sum(k * n for k, n in shapes(args.layers))
    inputs = {rows: {k: torch.randn(rows, k) for k in (1024, 4096)} for rows in args.rows}
    works: dict[str, Callable[[], object]] = {}
    kept: dict[str, tuple[float, str]] = {}
    left_out = []

    def add(name: str, step: Callable[[dict[int, Tensor]], object], bytes_per_weight: float, is_kept: str) -> None:
        kept[name] = (bytes_per_weight, is_kept)
        works[f"{name}\nwarm"] = lambda: step(inputs[args.rows[0]])
        for rows in args.rows:
            works[f"{name}\n{rows}"] = lambda step=step, x=inputs[rows]: step(x)  # type: ignore[misc]

    with torch.inference_mode():
        weights = random_weights(args.layers)
        for route in ROUTES:
            try:
                products = [(weight.shape[1], route.make(weight)) for weight in weights]
                is_kept = all(keeps_rows_apart(product, k, args.rows) for k, product in products[-3:])
            except (AttributeError, RuntimeError) as error:  # this build of torch lacks it, or the machine does
                left_out.append(f"{route.name}: {str(error).splitlines()[0]}")
                continue
            step = lambda x, all_of=products: [product(x[k]) for k, product in all_of]  # noqa: E731
            add(route.name, step, route.bytes_per_weight, "yes" if is_kept else "no")
            print(f"built: {route.name}", flush=True)
        if (by_onnx := onnx_step(weights)) is None:
            left_out.append("ONNX Runtime MatMulNBits: not installed")
        else:
            probe = {k: torch.randn((16, k), generator=torch.Generator().manual_seed(SEED + 1)) for k in (1024, 4096)}
            whole = by_onnx(probe)
            single = by_onnx({k: rows[3:4].contiguous() for k, rows in probe.items()})
            same = all(np.array_equal(a[3:4], b) for a, b in zip(whole, single, strict=True))
            add("ONNX Runtime MatMulNBits int4", by_onnx, 0.5 + 4 / GROUP, "yes" if same else "no")
        gb_s = bandwidth_gb_s(rounds)
        taken = take_turns(works, rounds)
    rows_out: list[tuple[object, ...]] = [
        ("route", *(f"B={rows}, ms" for rows in args.rows), "least at this bandwidth, ms", "own row")
    ]
    numbers: dict[str, Any] = {}
    for name, (bytes_per_weight, is_kept) in kept.items():
        spreads = {rows: spread(taken[f"{name}\n{rows}"] * 1e3) for rows in args.rows}
        least_ms = num_weights * bytes_per_weight / gb_s / 1e6
        rows_out.append(
            (name, *(f"{s.median:.1f} [{s.low:.1f}, {s.high:.1f}]" for s in spreads.values()), least_ms, is_kept)
        )
        numbers[name] = {
            "ms": {str(rows): s.numbers() for rows, s in spreads.items()},
            "least_ms": least_ms,
            "row_is_its_own": is_kept == "yes",
        }
    for line in left_out:
        print(f"left out: {line}")
    publish(
        Outcome(
            "kernels",
            PROTOCOL,
            f"random weights, {args.layers} layers, {num_weights / 1e6:.0f} M weights; {rounds} rounds, "
            f"{torch.get_num_threads()} threads, {gb_s:.1f} GB/s",
            [Table("Products of one decode step", rows_out)],
            {"bandwidth_gb_s": gb_s, "threads": torch.get_num_threads(), "routes": numbers, "left_out": left_out},
            {
                f"{name}: a row's result is its own": numbers[name]["row_is_its_own"]
                for name in numbers
                if name.startswith("Stretto")
            },
        ),
        args,
    )


if __name__ == "__main__":
    main()
