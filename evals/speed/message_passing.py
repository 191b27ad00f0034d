"""One graph convolution of `chordgnn` by our own `index_add`, beside torch-geometric's ways, on the same graph.

The graph is that of a sonata movement (`speed/harmony.py` names it), and that of its first 32 measures, which is what
one window of the service sees. All ways have the same weights and must give the same numbers. torch-geometric is
measured where it is installed, in an environment of its own; the product does not need it.

    python -m venv peer && peer/bin/pip install torch torch_geometric    # and the packages of this repository
    peer/bin/python evals/speed/message_passing.py --data ../shared/data --threads 1

Legend: N notes, E edges, D features. Cost: some twenty seconds.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harmony import longest_sonata_movement
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Row, Table, parser, publish
from stretto_harmony.models.chordgnn.graph import RELATIONS, build_graph
from stretto_harmony.models.chordgnn.network import RelationalConvolution
from stretto_harmony.readers.musicxml import read_score
from timing import spread

WIDTH = 128
WINDOW_MEASURES = 32
DEFAULT_ROUNDS = 20
PROTOCOL = (
    "One layer of 128 to 128 features over seven relations in this process, the ways in turn; medians over rounds with "
    "95 % bootstrap intervals. Forward as it is served, without gradients; and forward with backward, as in training."
)

Edges = tuple[Tensor, ...]
Way = Callable[[Tensor, Edges], Tensor]


def directed(edges: Edges) -> list[Tensor]:
    """The seven relations [2, E]: the four, and the reverse of all but the first, in our order."""
    found = []
    for name, pairs in zip(RELATIONS, edges, strict=True):
        found += [pairs] if name == "onset" else [pairs, pairs.flip(0)]
    return found


def scattered(layer: RelationalConvolution) -> Way:
    """torch-geometric's means by relation, then our one product."""
    scatter = importlib.import_module("torch_geometric.utils").scatter

    def convolve(x: Tensor, edges: Edges) -> Tensor:
        means = [scatter(x[source], target, dim_size=len(x), reduce="mean") for source, target in directed(edges)]
        return x + F.relu(layer.norm(layer.linear(torch.cat([x, *means], dim=1))))

    return convolve


def convolutions(layer: RelationalConvolution) -> Way:
    """torch-geometric's own layer for each relation, as ChordGNN's authors put theirs together, with our weights."""
    made: Any = importlib.import_module("torch_geometric.nn").SAGEConv
    weights = layer.linear.weight.detach().split(WIDTH, dim=1)
    each = [made(WIDTH, WIDTH, aggr="mean", root_weight=False, bias=False) for _ in weights[1:]]
    for convolution, weight in zip(each, weights[1:], strict=True):
        convolution.lin_l.weight = nn.Parameter(weight.contiguous())

    def convolve(x: Tensor, edges: Edges) -> Tensor:
        total = F.linear(x, weights[0], layer.linear.bias)
        for convolution, pairs in zip(each, directed(edges), strict=True):
            total = total + convolution(x, pairs)
        return x + F.relu(layer.norm(total))

    return convolve


def ways(layer: RelationalConvolution) -> dict[str, Way]:
    """Ours, and torch-geometric's where it is installed."""
    found: dict[str, Way] = {"ours, index_add and one product": layer}
    if importlib.util.find_spec("torch_geometric") is not None:
        found["torch-geometric, scatter and our product"] = scattered(layer)
        found["torch-geometric, SAGEConv by relation"] = convolutions(layer)
    return found


def times(x: Tensor, edges: Edges, found: Mapping[str, Way], rounds: int, *, learns: bool) -> dict[str, list[float]]:
    """Seconds of each way by round; they take turns, and the first round does not count."""
    taken: dict[str, list[float]] = {name: [] for name in found}
    for number in range(rounds + 1):
        for name, way in found.items():
            start = time.perf_counter()
            with torch.inference_mode(not learns):
                out = way(x, edges)
                if learns:
                    out.sum().backward()
            if number:
                taken[name].append(time.perf_counter() - start)
    return taken


def difference(x: Tensor, edges: Edges, found: Mapping[str, Way]) -> float:
    """How far any way is from ours at most."""
    with torch.inference_mode():
        outs = [way(x, edges) for way in found.values()]
    return max(float((out - outs[0]).abs().max()) for out in outs)


def main() -> None:
    """Parse, measure, publish."""
    args = parser(__doc__).parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    name, data = longest_sonata_movement(args.data / "harmony" / "when_in_rome.tar.xz")
    score = read_score(data)
    torch.manual_seed(0)
    found = ways(RelationalConvolution(WIDTH, WIDTH).eval())
    rows: list[Row] = [("graph", "pass", "way", "milliseconds", "low", "high", "times ours")]
    numbers: dict[str, Any] = {"threads": torch.get_num_threads(), "peer": len(found) > 1}
    distances = []
    for what, seen in (("a window", score.measures(0, WINDOW_MEASURES)), ("the movement", score)):
        graph = build_graph(seen)
        edges = tuple(torch.from_numpy(graph.edges[relation]) for relation in RELATIONS)
        x = torch.randn(graph.num_notes, WIDTH)
        distances.append(difference(x, edges, found))
        for kind, learns in (("forward", False), ("forward and backward", True)):
            taken = times(x, edges, found, args.limit or DEFAULT_ROUNDS, learns=learns)
            ours = float(np.median(next(iter(taken.values()))))
            for way, seconds in taken.items():
                each = spread(np.array(seconds)).times(1e3)
                rows.append((what, kind, way, each.median, each.low, each.high, each.median / ours / 1e3))
            numbers[f"{what}, {kind}"] = {way: list(seconds) for way, seconds in taken.items()}
    passed = {"all ways give the same numbers": max(distances) < 1e-4}
    table = Table(f"One convolution, {numbers['threads']} threads", rows)
    publish(Outcome("message_passing", PROTOCOL, f"{name}: {score.num_notes} notes", [table], numbers, passed), args)


if __name__ == "__main__":
    main()
