"""One file per user story, and what they share: resuming, rendering, the cascades. No protobuf, no grpc."""
