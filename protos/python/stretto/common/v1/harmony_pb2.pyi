from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ChordQuality(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHORD_QUALITY_UNSPECIFIED: _ClassVar[ChordQuality]
    CHORD_QUALITY_MAJOR: _ClassVar[ChordQuality]
    CHORD_QUALITY_MINOR: _ClassVar[ChordQuality]
    CHORD_QUALITY_DIMINISHED: _ClassVar[ChordQuality]
    CHORD_QUALITY_AUGMENTED: _ClassVar[ChordQuality]
    CHORD_QUALITY_MAJOR_SEVENTH: _ClassVar[ChordQuality]
    CHORD_QUALITY_DOMINANT_SEVENTH: _ClassVar[ChordQuality]
    CHORD_QUALITY_MINOR_MAJOR_SEVENTH: _ClassVar[ChordQuality]
    CHORD_QUALITY_MINOR_SEVENTH: _ClassVar[ChordQuality]
    CHORD_QUALITY_DIMINISHED_SEVENTH: _ClassVar[ChordQuality]
    CHORD_QUALITY_HALF_DIMINISHED_SEVENTH: _ClassVar[ChordQuality]
    CHORD_QUALITY_AUGMENTED_SEVENTH: _ClassVar[ChordQuality]
    CHORD_QUALITY_AUGMENTED_MAJOR_SEVENTH: _ClassVar[ChordQuality]
    CHORD_QUALITY_ITALIAN_SIXTH: _ClassVar[ChordQuality]
    CHORD_QUALITY_GERMAN_SIXTH: _ClassVar[ChordQuality]
    CHORD_QUALITY_FRENCH_SIXTH: _ClassVar[ChordQuality]
CHORD_QUALITY_UNSPECIFIED: ChordQuality
CHORD_QUALITY_MAJOR: ChordQuality
CHORD_QUALITY_MINOR: ChordQuality
CHORD_QUALITY_DIMINISHED: ChordQuality
CHORD_QUALITY_AUGMENTED: ChordQuality
CHORD_QUALITY_MAJOR_SEVENTH: ChordQuality
CHORD_QUALITY_DOMINANT_SEVENTH: ChordQuality
CHORD_QUALITY_MINOR_MAJOR_SEVENTH: ChordQuality
CHORD_QUALITY_MINOR_SEVENTH: ChordQuality
CHORD_QUALITY_DIMINISHED_SEVENTH: ChordQuality
CHORD_QUALITY_HALF_DIMINISHED_SEVENTH: ChordQuality
CHORD_QUALITY_AUGMENTED_SEVENTH: ChordQuality
CHORD_QUALITY_AUGMENTED_MAJOR_SEVENTH: ChordQuality
CHORD_QUALITY_ITALIAN_SIXTH: ChordQuality
CHORD_QUALITY_GERMAN_SIXTH: ChordQuality
CHORD_QUALITY_FRENCH_SIXTH: ChordQuality

class HarmonyKey(_message.Message):
    __slots__ = ("tonic_fifths", "is_minor")
    TONIC_FIFTHS_FIELD_NUMBER: _ClassVar[int]
    IS_MINOR_FIELD_NUMBER: _ClassVar[int]
    tonic_fifths: int
    is_minor: bool
    def __init__(self, tonic_fifths: _Optional[int] = ..., is_minor: _Optional[bool] = ...) -> None: ...

class HarmonyLabel(_message.Message):
    __slots__ = ("start_ticks", "end_ticks", "key", "numeral", "tonicised_key", "root_fifths", "quality", "inversion", "confidence", "measure_index", "measure_number", "beat")
    START_TICKS_FIELD_NUMBER: _ClassVar[int]
    END_TICKS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    NUMERAL_FIELD_NUMBER: _ClassVar[int]
    TONICISED_KEY_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIFTHS_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    INVERSION_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    MEASURE_INDEX_FIELD_NUMBER: _ClassVar[int]
    MEASURE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    start_ticks: int
    end_ticks: int
    key: HarmonyKey
    numeral: str
    tonicised_key: HarmonyKey
    root_fifths: int
    quality: ChordQuality
    inversion: int
    confidence: float
    measure_index: int
    measure_number: str
    beat: float
    def __init__(self, start_ticks: _Optional[int] = ..., end_ticks: _Optional[int] = ..., key: _Optional[_Union[HarmonyKey, _Mapping]] = ..., numeral: _Optional[str] = ..., tonicised_key: _Optional[_Union[HarmonyKey, _Mapping]] = ..., root_fifths: _Optional[int] = ..., quality: _Optional[_Union[ChordQuality, str]] = ..., inversion: _Optional[int] = ..., confidence: _Optional[float] = ..., measure_index: _Optional[int] = ..., measure_number: _Optional[str] = ..., beat: _Optional[float] = ...) -> None: ...
