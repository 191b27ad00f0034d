"""The command line of the corpus: `python -m stretto_shared.training.corpus {render,real,captions,debug} --help`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from stretto_shared.training.corpus import build, debug, real
from stretto_shared.training.corpus.plans import REPERTOIRES


def main() -> None:
    """Parse the command line and run one subcommand."""
    parser = argparse.ArgumentParser(prog="stretto_shared.training.corpus", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    render = commands.add_parser("render", help="render the captioned clips")
    render.add_argument("--data", type=Path, required=True, help="folder that holds symbolic/*.tar.xz")
    render.add_argument("--out", type=Path, required=True)
    render.add_argument("--clips", type=int, default=12_000, help="number of training clips")
    render.add_argument("--heldout", type=int, default=300, help="number of clips of valid, and of test")
    render.add_argument("--seed", type=int, default=0)
    render.add_argument("--repertoire", choices=sorted(REPERTOIRES), default="balanced")
    render.add_argument("--workers", type=int, default=1)
    recordings = commands.add_parser("real", help="prepare real recordings for the codecs")
    recordings.add_argument("--data", type=Path, required=True, help="folder that holds maps/train/*.opus")
    recordings.add_argument("--out", type=Path, required=True)
    renew = commands.add_parser("captions", help="write the captions of a rendered corpus anew")
    renew.add_argument("--data", type=Path, required=True)
    renew.add_argument("--out", type=Path, required=True)
    renew.add_argument("--seed", type=int, default=0)
    tiny = commands.add_parser("debug", help="make a tiny corpus without any data, in seconds")
    tiny.add_argument("--out", type=Path, required=True)
    tiny.add_argument("--clips", type=int, default=12)
    tiny.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.command == "render":
        build.render_corpus(
            options.data,
            options.out,
            num_train=options.clips,
            num_heldout=options.heldout,
            seed=options.seed,
            num_workers=options.workers,
            repertoire=REPERTOIRES[options.repertoire],
        )
    elif options.command == "captions":
        logging.info(f"{build.recaption(options.data, options.out, options.seed)} clips captioned")
    elif options.command == "debug":
        debug.build_debug_corpus(options.out, options.clips, options.seed)
    else:
        logging.info("hours %s", real.prepare(options.data, options.out))


if __name__ == "__main__":
    main()
