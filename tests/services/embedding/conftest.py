"""A server of the embedding service with encoders small enough to compute by hand."""

from __future__ import annotations

import pytest
from band_encoders import BandEncoder, Service, band_info, level_encoder, write_checkpoint
from stretto_embedding.loading import joint, melody
from stretto_embedding.settings import EmbeddingSettings


@pytest.fixture(scope="module")
def bands_service(tmp_path_factory):
    """The service with the two small encoders as checkpoints of its weights folder, and one that is nobody's."""
    folder = tmp_path_factory.mktemp("weights")
    write_checkpoint(folder, "bands", "Bands")
    write_checkpoint(folder, "mute", "Mute")
    write_checkpoint(folder, "levels", "Levels")
    write_checkpoint(folder, "foreign", "SomethingElse")

    def build_bands(resolved, is_default, load_text_encoder):
        return BandEncoder(band_info(resolved.name, is_default=is_default))

    def build_mute(resolved, is_default, load_text_encoder):
        return BandEncoder(band_info(resolved.name, num_codebooks=0), default_tags=())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint, "ARCHITECTURES", {"Bands": build_bands, "Mute": build_mute})
        patch.setattr(melody, "ARCHITECTURES", {"Levels": lambda resolved: level_encoder(resolved.name)})
        service = Service(EmbeddingSettings(weights_dir=folder, max_queued=64))
        yield service
        service.close()
