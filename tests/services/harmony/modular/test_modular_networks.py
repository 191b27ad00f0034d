"""The invariants that every module owes: shapes and ranges, step by step = at once, a batch = its rows alone, the same
twice, and each thing it is told changes what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from stretto_harmony.models.modular import vectors
from stretto_harmony.models.modular.config import PUBLISHED, ModularConfig
from stretto_harmony.models.modular.networks import CausalModule, CausalState, InitialChord, Modules
from tiny_modules import TINY, tiny_modules
from torch import Tensor

CAUSAL = {"csm": vectors.CHORD_DIM, "ktm": vectors.WIDE_CHORD_DIM, "ksm": vectors.WIDE_CHORD_DIM}


def chords(name: str, batch: int = 3, length: int = 5, seed: int = 0) -> Tensor:
    return torch.rand(batch, length, CAUSAL[name], generator=torch.Generator().manual_seed(seed))


def notes(batch: int = 3, length: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(batch, length, vectors.NOTE_DIM, generator=torch.Generator().manual_seed(seed))


def causal(name: str) -> CausalModule:
    module = getattr(tiny_modules(2), name)
    assert isinstance(module, CausalModule)
    return module


def test_shapes_and_ranges() -> None:
    modules = tiny_modules()
    assert modules.ctm(notes()).shape == (3, 6)
    assert modules.ccm(notes(), torch.tensor([6, 4, 1])).shape == (3, 1540)
    assert modules.csm(chords("csm")).shape == (3, 5, 116)
    assert modules.ktm(chords("ktm")).shape == (3, 5, 1)
    assert modules.ksm(chords("ksm")).shape == (3, 5, 58)
    probabilities = modules.ccm.classify_equal(notes()).exp()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3))
    torch.testing.assert_close(modules.icm.log_prior.exp().sum(-1), torch.ones(2))


@pytest.mark.parametrize("name", CAUSAL)
def test_step_by_step_is_at_once(name: str) -> None:
    module, given = causal(name), chords(name)
    state = module.initial_state(3)
    for place in range(given.shape[1]):
        state = module.step(given[:, place], state)
    torch.testing.assert_close(module.head(state.hidden), module(given)[:, -1])


@pytest.mark.parametrize("name", CAUSAL)
def test_the_states_of_a_sequence_are_those_of_its_steps(name: str) -> None:
    module, given = causal(name), chords(name)
    states, state = module.states(given), module.initial_state(3)
    for place in range(given.shape[1]):
        state = module.step(given[:, place], state)
        torch.testing.assert_close(states.hidden[:, place], state.hidden)
        torch.testing.assert_close(states.cell[:, place], state.cell)


@pytest.mark.parametrize("name", CAUSAL)
def test_branches_are_steps_from_the_rows_that_they_name(name: str) -> None:
    module = causal(name)
    state = CausalState(torch.rand(4, 8), torch.rand(4, 8))
    few, which, rows = chords(name, 1, 3)[0], torch.tensor([2, 0, 2, 1]), torch.tensor([3, 3, 0, 1])
    branched, stepped = module.branch(few, which, state, rows), module.step(few[which], state.rows(rows))
    torch.testing.assert_close(branched.hidden, stepped.hidden)
    torch.testing.assert_close(branched.cell, stepped.cell)


@pytest.mark.parametrize("name", CAUSAL)
def test_what_comes_later_does_not_change_what_was_said(name: str) -> None:
    module, given = causal(name), chords(name)
    changed = given.clone()
    changed[:, 3:] += 1
    torch.testing.assert_close(module(given)[:, :3], module(changed)[:, :3])
    assert not torch.allclose(module(given)[:, 3:], module(changed)[:, 3:])


@pytest.mark.parametrize("name", CAUSAL)
def test_a_batch_of_chords_is_its_rows_alone(name: str) -> None:
    module, given = causal(name), chords(name)
    torch.testing.assert_close(module(given), torch.cat([module(row[None]) for row in given]))


def test_a_batch_of_notes_is_its_rows_alone() -> None:
    modules, given = tiny_modules(), notes()
    torch.testing.assert_close(modules.ctm(given), torch.cat([modules.ctm(row[None]) for row in given]))
    alone = torch.cat([modules.ccm.classify_equal(row[None]) for row in given])
    torch.testing.assert_close(modules.ccm.classify_equal(given), alone)


def test_padding_of_a_span_is_not_heard() -> None:
    modules, given = tiny_modules(), notes()
    lengths = torch.tensor([6, 4, 2])
    padded = modules.ccm(given, lengths).log_softmax(-1)
    for row, length in enumerate(lengths.tolist()):
        alone = modules.ccm.classify_equal(given[row : row + 1, :length])
        torch.testing.assert_close(padded[row : row + 1], alone)


def test_the_same_twice_is_the_same() -> None:
    first, second = tiny_modules(7), tiny_modules(7)
    assert torch.equal(first.ctm(notes()), second.ctm(notes()))
    assert torch.equal(first.ksm(chords("ksm")), second.ksm(chords("ksm")))
    assert not torch.equal(first.ctm(notes()), tiny_modules(8).ctm(notes()))


@pytest.mark.parametrize("column", [0, vectors.OCTAVE, vectors.ONSET_LEVEL, vectors.OFFSET_LEVEL, vectors.GAPS])
def test_each_thing_told_of_a_note_changes_where_chords_begin(column: int) -> None:
    module, given = tiny_modules().ctm, notes()
    changed = given.clone()
    changed[:, 2, column] += 1
    assert not torch.allclose(module(given), module(changed), atol=1e-5)


@pytest.mark.parametrize("column", [0, vectors.IN_SPAN, vectors.IS_LOWEST, vectors.RELATIVE_OCTAVE, vectors.HEIGHT])
def test_each_thing_told_of_a_note_changes_the_chord(column: int) -> None:
    module, given = tiny_modules().ccm, notes()
    changed = given.clone()
    changed[:, 2, column] += 1
    assert not torch.allclose(module.classify_equal(given), module.classify_equal(changed), atol=1e-5)


@pytest.mark.parametrize("name", CAUSAL)
def test_each_thing_told_of_a_chord_changes_what_follows(name: str) -> None:
    module, given = causal(name), chords(name)
    width = (CAUSAL[name] - 58) // 2
    for column in (0, width, width + 12, 2 * width + 12, 2 * width + 24, 2 * width + 25, CAUSAL[name] - 1):
        changed = given.clone()
        changed[:, 1, column] += 1
        assert not torch.allclose(module(given)[:, 1:], module(changed)[:, 1:], atol=1e-6), column


@pytest.mark.parametrize(("reduction", "count"), [("none", 1276), ("roots", 348), ("triads", 116)])
def test_a_reduction_is_the_size_of_what_is_told_apart(reduction: str, count: int) -> None:
    module = tiny_modules(reduction=reduction).csm
    prior = module.log_prior(module.states(chords("csm")[:, :2]).rows(torch.tensor([0])))
    assert prior.shape[-1] == count
    torch.testing.assert_close(prior.exp().sum(-1), torch.ones(prior.shape[:-1]))


def test_initial_chords_are_counted_for_each_mode() -> None:
    module = InitialChord()
    module.fit(torch.tensor([5, 5, 5, 9]), torch.tensor([0, 0, 0, 1]))
    prior = module.log_prior.exp()
    assert prior[0, 5] == pytest.approx((3 + 1 / 1276) / 4)
    assert prior[1, 9] == pytest.approx((1 + 1 / 1276) / 2)
    assert prior[0, 9] == pytest.approx(1 / 1276 / 4)


def test_the_default_modules_fit_their_room_and_the_published_ones_have_the_papers_sizes() -> None:
    count = sum(weight.numel() for weight in Modules(ModularConfig()).state_dict().values())
    assert 2 * count <= 4_000_000
    published = Modules(PUBLISHED)
    assert published.ctm.embed.weight.shape == (256, 71)
    assert published.ctm.lstm.weight_hh_l0.shape == (512, 128)
    assert published.ccm.lstm.weight_ih_l0.shape == (1024, 71)
    assert published.csm.head.fc2.weight.shape == (116, 128)
    assert published.ktm.lstm.weight_hh_l0.shape == (512, 128)
    assert published.ksm.head.fc2.weight.shape == (58, 256)


def test_sizes_and_reductions_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="sequence_reduction"):
        replace(TINY, sequence_reduction="nothing")
    with pytest.raises(ValueError, match="key_transition_lstm_dim"):
        replace(TINY, key_transition_lstm_dim=0)
