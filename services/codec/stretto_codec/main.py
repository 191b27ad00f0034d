"""Settings, loaders, engine, servicer, server: the one place of this service that knows everything."""

from __future__ import annotations

import functools

from stretto.codec.v1 import codec_pb2_grpc
from stretto_shared.grpc.hosting import HostContext, ServiceHost
from stretto_shared.grpc.program import serve_alone
from stretto_shared.weights import parse_model_list

from stretto_codec import loading
from stretto_codec.engine import CodecEngine
from stretto_codec.servicer import CodecServicer
from stretto_codec.settings import CodecSettings


def build(context: HostContext, settings: CodecSettings | None = None) -> ServiceHost:
    """The codec service, not started."""
    settings = settings or CodecSettings()
    sources = parse_model_list(settings.models or ",".join(loading.list_default_names(settings.weights_dir)))
    default_name = next(iter(sources))
    engine = CodecEngine(
        {
            name: functools.partial(
                loading.load,
                name,
                source,
                weights_dir=settings.weights_dir,
                is_default=name == default_name,
                dtype=settings.dtype,
                max_joined=settings.max_joined,
                only_streams=True,
                native_kernel_dir=settings.native_kernel_dir,
            )
            for name, source in sources.items()
        },
        max_requests=settings.max_requests,
        num_threads=settings.num_threads,
        meter=None if context.metrics is None else context.metrics.stage("codec"),
    )
    return ServiceHost(
        name="codec",
        full_name="stretto.codec.v1.CodecService",
        add_to_server=lambda grpc_server: codec_pb2_grpc.add_CodecServiceServicer_to_server(
            CodecServicer(engine), grpc_server
        ),
        start=engine.start,
        stop=engine.stop,
    )


def main() -> None:
    """Serve the codec service alone until SIGTERM or SIGINT."""
    serve_alone("codec", build)


if __name__ == "__main__":
    main()
