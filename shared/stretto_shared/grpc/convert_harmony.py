"""Where the message `stretto.common.v1.HarmonyLabel` and the value type meet; by the rules of `convert`."""

from __future__ import annotations

from collections.abc import Iterable

from stretto.common.v1 import harmony_pb2

from stretto_shared.errors import InvalidInput
from stretto_shared.grpc.convert import errors_named
from stretto_shared.harmony import ChordQuality, HarmonyKey, HarmonyLabel

_QUALITIES = {getattr(harmony_pb2, f"CHORD_QUALITY_{each.name}"): each for each in ChordQuality}
_NUMBERS = {quality: number for number, quality in _QUALITIES.items()}


def key_from_proto(message: harmony_pb2.HarmonyKey, field: str = "key") -> HarmonyKey:
    """A key whose tonic is one of the 35.

    Raises:
        InvalidInput: If it is not.
    """
    with errors_named(field):
        return HarmonyKey(message.tonic_fifths, message.is_minor)


def key_to_proto(key: HarmonyKey) -> harmony_pb2.HarmonyKey:
    """A key of the wire."""
    return harmony_pb2.HarmonyKey(tonic_fifths=key.tonic_fifths, is_minor=key.is_minor)


def quality_from_proto(number: harmony_pb2.ChordQuality, field: str = "quality") -> ChordQuality:
    """A chord quality.

    Raises:
        InvalidInput: If it is none that is known here.
    """
    if number not in _QUALITIES:
        raise InvalidInput(field, f"expected a quality of the wire, got {number}. Name one.")
    return _QUALITIES[number]


def labels_from_proto(messages: Iterable[harmony_pb2.HarmonyLabel], field: str = "labels") -> tuple[HarmonyLabel, ...]:
    """Labels, each checked by itself.

    Raises:
        InvalidInput: If one is off.
    """
    return tuple(_label_from_proto(message, f"{field}[{index}]") for index, message in enumerate(messages))


def labels_to_proto(labels: Iterable[HarmonyLabel]) -> list[harmony_pb2.HarmonyLabel]:
    """Labels of the wire."""
    return [
        harmony_pb2.HarmonyLabel(
            start_ticks=label.start_ticks,
            end_ticks=label.end_ticks,
            key=key_to_proto(label.key),
            numeral=label.numeral,
            tonicised_key=key_to_proto(label.tonicised_key),
            root_fifths=label.root_fifths,
            quality=_NUMBERS[label.quality],
            inversion=label.inversion,
            confidence=label.confidence,
            measure_index=label.measure_index,
            measure_number=label.measure_number,
            beat=label.beat,
        )
        for label in labels
    ]


def _label_from_proto(message: harmony_pb2.HarmonyLabel, field: str) -> HarmonyLabel:
    key = key_from_proto(message.key, f"{field}.key")
    applied = message.tonicised_key if message.HasField("tonicised_key") else message.key
    tonicised_key = key_from_proto(applied, f"{field}.tonicised_key")
    quality = quality_from_proto(message.quality, f"{field}.quality")
    with errors_named(field):
        return HarmonyLabel(
            start_ticks=message.start_ticks,
            end_ticks=message.end_ticks,
            key=key,
            numeral=message.numeral,
            tonicised_key=tonicised_key,
            root_fifths=message.root_fifths,
            quality=quality,
            inversion=message.inversion,
            confidence=message.confidence,
            measure_index=message.measure_index,
            measure_number=message.measure_number,
            beat=message.beat,
        )
