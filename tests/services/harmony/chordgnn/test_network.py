"""ChordGNN itself: its convolution against a dense one, and what every model owes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from random_scores import random_score
from stretto_harmony.models.chordgnn.batch import centre_of, collate
from stretto_harmony.models.chordgnn.config import PUBLISHED, ChordGnnConfig
from stretto_harmony.models.chordgnn.graph import RELATIONS, build_graph
from stretto_harmony.models.chordgnn.network import ChordGnn, Heads, RelationalConvolution
from stretto_harmony.scores.score import Score
from torch import Tensor
from torch.nn import functional as F

TINY = ChordGnnConfig(
    num_numerals=9, pitch_dim=4, feature_dim=4, hidden_dim=8, onset_dim=8, recurrent_dim=6, post_dim=5
)


def tiny_network(config: ChordGnnConfig = TINY, seed: int = 0) -> ChordGnn:
    torch.manual_seed(seed)
    return ChordGnn(config).eval()


@torch.inference_mode()
def told(network: ChordGnn, scores: list[Score], shift: int = 0) -> Tensor:
    out = network(collate([build_graph(score) for score in scores], [shift] * len(scores)))
    return torch.cat(list(out.values()), dim=1)


def test_the_convolution_equals_one_with_dense_matrices() -> None:
    torch.manual_seed(1)
    graph = build_graph(random_score(4))
    x = torch.randn(graph.num_notes, 6)
    layer = RelationalConvolution(6, 6)
    means = [x]
    for name in RELATIONS:
        dense = torch.zeros(graph.num_notes, graph.num_notes)
        for source, target in graph.edges[name].T.tolist():
            dense[target, source] = 1
        for matrix in (dense,) if name == "onset" else (dense, dense.T):
            means.append(matrix @ x / matrix.sum(dim=1, keepdim=True).clamp(min=1))
    expected = x + F.relu(layer.norm(layer.linear(torch.cat(means, dim=1))))
    found = layer(x, tuple(torch.from_numpy(graph.edges[name]) for name in RELATIONS))
    torch.testing.assert_close(found, expected)


def test_each_head_has_its_classes_at_each_onset_in_both_stages() -> None:
    graphs = [build_graph(random_score(seed)) for seed in range(2)]
    stages = tiny_network().stages(collate(graphs, [0, 0]))
    assert len(stages) == 2
    for stage in stages:
        assert {name: tuple(logits.shape) for name, logits in stage.items()} == {
            name: (sum(graph.num_onsets for graph in graphs), size) for name, size in TINY.heads.items()
        }


def test_a_batch_of_three_equals_three_of_one() -> None:
    network = tiny_network()
    scores = [random_score(seed, num_notes=20 + 30 * seed) for seed in range(3)]
    alone = torch.cat([told(network, [score]) for score in scores])
    torch.testing.assert_close(told(network, scores), alone, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_and_another_another() -> None:
    score = random_score(0)
    assert torch.equal(told(tiny_network(), [score]), told(tiny_network(), [score]))
    assert not torch.allclose(told(tiny_network(), [score]), told(tiny_network(seed=1), [score]))


@pytest.mark.parametrize(
    "what", ["fifths", "midi", "features", "edges", "sounding", "bass", "onset_features", "key_signature"]
)
def test_each_input_changes_what_is_told(what: str) -> None:
    batch = collate([build_graph(random_score(2))], [0])
    value = getattr(batch, what)
    if what == "edges":
        changed = [(*batch.edges[:n], batch.edges[n][:, :0], *batch.edges[n + 1 :]) for n in range(len(RELATIONS))]
    else:
        changed = [value[:, ::2] if what == "sounding" else value.roll(1, 0) if what == "bass" else value + 1]
    network = tiny_network()
    with torch.inference_mode():
        plain = torch.cat(list(network(batch).values()), dim=1)
        for each in changed:
            other = torch.cat(list(network(dataclasses.replace(batch, **{what: each})).values()), dim=1)
            assert not torch.allclose(plain, other, atol=1e-6)


def test_the_published_network_sees_neither_held_notes_nor_the_signature() -> None:
    assert (PUBLISHED.hidden_dim, PUBLISHED.num_convolutions, PUBLISHED.recurrent_dim) == (256, 2, 128)
    small = dataclasses.replace(TINY, sounding=PUBLISHED.sounding, key_signature=PUBLISHED.key_signature)
    network, batch = tiny_network(small), collate([build_graph(random_score(2))], [0])
    without = dataclasses.replace(batch, sounding=batch.sounding[:, :0], key_signature=batch.key_signature + 3)
    with torch.inference_mode():
        assert torch.equal(network(batch)["key"], network(without)["key"])


def test_span_basses_are_seen_where_the_config_says_so_and_start_without_a_say() -> None:
    batch = collate([build_graph(random_score(2))], [0])
    moved = dataclasses.replace(batch, span_bass=batch.span_bass.roll(1, 1))
    plain, seeing = tiny_network(), tiny_network(dataclasses.replace(TINY, bass_spans=True))
    missing = seeing.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == ["pooling.spans.weight"]
    with torch.inference_mode():
        assert torch.equal(plain(batch)["inversion"], plain(moved)["inversion"])
        assert torch.equal(plain(batch)["inversion"], seeing(batch)["inversion"])
        width = TINY.hidden_dim
        for columns in ([0], [width], [2 * width], [2 * width + 1]):
            torch.nn.init.zeros_(seeing.pooling.spans.weight)
            seeing.pooling.spans.weight[:3, columns] = 1.0
            assert not torch.allclose(seeing(batch)["inversion"], seeing(moved)["inversion"], atol=1e-6), columns


def test_a_transposed_score_is_heard_alike() -> None:
    network, score = tiny_network(), random_score(3)
    moved = score.transposed(2)
    shifts = [-centre_of(build_graph(each)) for each in (score, moved)]
    assert shifts[0] - shifts[1] == 2
    torch.testing.assert_close(told(network, [score], shifts[0]), told(network, [moved], shifts[1]))


def test_the_post_processing_sends_no_gradient_to_the_heads() -> None:
    network = tiny_network()
    stages = network.stages(collate([build_graph(random_score(1))], [0]))
    stages[1]["key"].sum().backward()
    assert network.post is not None and network.post.heads.linear.weight.grad is not None
    assert all(value.grad is None for value in network.encoder.parameters())


def test_deep_heads_start_as_plain_ones_and_then_see_the_onset_too() -> None:
    torch.manual_seed(0)
    heads = Heads(6, {"key": 4, "root": 3}, (2, 8))
    x, onset = torch.randn(5, 6), torch.randn(5, 2)
    assert torch.equal(heads(x, onset)["root"], heads.linear(x)[:, 4:])
    assert heads.deep is not None
    torch.nn.init.normal_(heads.deep.weight)
    assert not torch.allclose(heads(x, onset)["root"], heads(x, onset + 1)["root"])


def test_a_network_without_post_processing_has_one_stage() -> None:
    network = tiny_network(dataclasses.replace(TINY, post_dim=0, head_dim=7))
    assert len(network.stages(collate([build_graph(random_score(1))], [0]))) == 1


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="hidden_dim must be 1 or more, got 0"):
        ChordGnnConfig(hidden_dim=0)


def test_the_centre_is_where_a_scale_without_signature_has_none() -> None:
    graph = build_graph(random_score(0, num_notes=400))
    assert centre_of(graph) == 0
    assert centre_of(dataclasses.replace(graph, fifths=graph.fifths - 4)) == -4
    assert np.issubdtype(graph.fifths.dtype, np.integer)
